# `make demo` and `make test` do all their set-up themselves: Python 3.11, make and package registries are enough.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# generated/ is written by the oldest grpcio-tools that the package supports: its code refuses older runtimes.
FLOOR  := 1.76.0

.DEFAULT_GOAL := help
.PHONY: help setup demo serve proto sync fmt check test test-heavy coverage bench lock clean

help:  ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; set PYTHON to a Python 3.11 or newer" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(READY)  ## Make .venv with everything that is locked

demo: $(READY)  ## Start a gateway and stream an answer: async, sync, and through a session
	@$(BIN)/python examples/demo.py

serve: $(READY)  ## Run a gateway on loopback with the embedded engine
	@$(BIN)/deepseek-grpc serve

proto: $(VENV)/.tools  ## Write generated/ anew from protos/
	scripts/generate.sh $(VENV)/tools/bin/python

$(VENV)/.tools: $(READY)
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==$(FLOOR)
	@touch $@

sync: $(READY)  ## Write the sync mirror of what is authored for asyncio
	$(BIN)/python scripts/unasync.py

fmt: $(READY)  ## Format the Python
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

check: $(READY) $(VENV)/.tools  ## Lint, types, protos, and whether mirror and generated code are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/python scripts/unasync.py --check
	scripts/generate.sh $(VENV)/tools/bin/python --check

test: $(READY)  ## Run the tests that need nothing but Python
	$(BIN)/python -m pytest -q

test-heavy: $(READY) $(VENV)/.peers  ## Run what needs minutes: the oldest and the newest grpcio, coverage, wheels, benchmarks' smoke runs
	$(BIN)/python -m pytest -q -m heavy --timeout 900

coverage: $(READY)  ## Run the tests, name the branches they don't take, fail under 95 %
	$(BIN)/python scripts/branches.py

$(VENV)/.peers: benchmarks/peers.txt | $(READY)
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@

bench: $(READY) $(VENV)/.peers  ## Run the benchmarks and print their ratios
	$(BIN)/python benchmarks/client_overhead.py
	$(BIN)/python benchmarks/session.py
	$(BIN)/python benchmarks/session_memory.py
	$(BIN)/python benchmarks/session_faults.py
	$(BIN)/python benchmarks/embedded_engine.py

lock: $(READY)  ## Resolve requirements.lock anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--all-extras --group dev --output-file requirements.lock pyproject.toml

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist
