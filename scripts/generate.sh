#!/bin/sh
# Writes the code and the descriptor set that protoc makes of protos/, or checks that they are fresh.
#
#     scripts/generate.sh PYTHON_WITH_GRPC_TOOLS [--check]
set -eu
cd "$(dirname "$0")/.."
python=$1
out=generated
if [ "${2:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
else
    rm -rf generated
    mkdir generated
fi

"$python" -m grpc_tools.protoc -Iprotos --python_out="$out" --pyi_out="$out" \
    --include_imports --descriptor_set_out="$out/deepseek_rpc.binpb" protos/deepseek_rpc/v2/*.proto
for service in text data fine_tune; do
    "$python" -m grpc_tools.protoc -Iprotos --grpc_python_out="$out" "protos/deepseek_rpc/v2/$service.proto"
done

if [ "$out" != generated ]; then
    diff -r -x __pycache__ generated "$out" || { echo "generated/ is stale: run 'make proto'" >&2; exit 1; }
fi
