# `make demo` shows it, `make test` tests it. Each installs what it needs, and no more, into a virtual environment in .venv.

PYTHON ?= python3
# Test processes side by side.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: errors only. Modules are compiled when they are imported first, which most of torch never is.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
INSTALL := $(PIP) install --no-compile --constraint constraints.txt
# One thread for each library: the processes share the cores already.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := --numprocesses $(JOBS) --dist worksteal --timeout 300
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
EXTRAS := $(VENV)/.extras

.PHONY: help demo test test-fast nightly check bench docs clean

help:
	@echo "make demo       install the runtime and replay three real sensors"
	@echo "make test       install the development packages and run the tests"
	@echo "make test-fast  the tests that take no processes, no compiler and no training: for every save"
	@echo "make nightly    install other people's encoders, Ray and TensorRT-RTX, and run all tests, the slow ones too"
	@echo "make check      style, types, import rules, documentation, ratios of speed"
	@echo "make bench      ratios of speed against reference implementations"
	@echo "make docs       write the references of commands and configuration, and the map of the runtime, again"

demo: $(RUNTIME)
	$(BIN)/fisher-edge demo

test: $(DEV)
	@sh scripts/install-test-tools.sh
	$(PYTEST) $(PARALLEL) tests

test-fast: $(DEV)
	$(PYTEST) $(PARALLEL) --fast tests

nightly: $(EXTRAS)
	@sh scripts/install-test-tools.sh
	$(PYTEST) $(PARALLEL) -m "" --timeout 1800 tests

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/command_reference.py --check
	$(BIN)/python scripts/architecture_map.py --check
	$(BIN)/python scripts/configuration_reference.py --check
	$(MAKE) bench

bench: $(DEV)
	@sh scripts/install-test-tools.sh
	$(BIN)/python -m pytest --quiet bench/bench_*.py

docs: $(DEV)
	$(BIN)/python scripts/command_reference.py
	$(BIN)/python scripts/architecture_map.py
	$(BIN)/python scripts/configuration_reference.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed; run: make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot make a virtual environment; on Debian and Ubuntu run: apt-get install python3-venv"; rm -rf $(VENV); exit 2; }

$(RUNTIME): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing the runtime into $(VENV) ..."
	@$(INSTALL) --editable .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "installing training, export, benchmark and development packages into $(VENV) ..."
	@$(INSTALL) --upgrade pip  # older ones know no --group
	@$(INSTALL) --editable ".[bridge,export,openvino,rmis,train]" --group dev
	@touch $@

$(EXTRAS): $(DEV)
	@echo "installing other people's encoders, Ray and TensorRT-RTX into $(VENV) ..."
	@$(INSTALL) --editable ".[encoders,ray]"
	@$(INSTALL) --no-deps tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings || echo "TensorRT-RTX cannot be installed here: its tests are skipped"
	@touch $@
