#!/bin/sh
# Fails unless generated/ is what the protos give: scripts/check_generated.sh PYTHON_WITH_GRPC_TOOLS
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
cp -R "$top/protos" "$top/Makefile" "$fresh/"
venv=$(cd "$(dirname "$1")/../.." && pwd)
make --silent -C "$fresh" --assume-old="$venv/.tools" --assume-old="$venv/.ready" VENV="$venv" proto
diff -r -x __pycache__ "$top/generated" "$fresh/generated" || { echo "generated/ is stale: run 'make proto'" >&2; exit 1; }
