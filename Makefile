# Two commands do everything: `make demo` and `make test`. Each makes its own virtual environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev

.PHONY: help demo test check bench docs clean

help:
	@echo "make demo    install and replay three real sensors (about a minute)"
	@echo "make test    install everything and run all tests"
	@echo "make check   style, types, import rules, documentation"
	@echo "make bench   ratios of speed against reference implementations"
	@echo "make docs    write the references of commands and of the configuration"

demo: $(RUNTIME)
	$(BIN)/fisher-edge demo

test: $(DEV)
	@sh scripts/install-test-tools.sh
	$(BIN)/python -m pytest tests

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/command_reference.py --check
	$(BIN)/python scripts/configuration_reference.py --check

bench: $(DEV)
	$(BIN)/python -m pytest bench/bench_*.py

docs: $(DEV)
	$(BIN)/python scripts/command_reference.py
	$(BIN)/python scripts/configuration_reference.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed; run: make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot make a virtual environment; on Debian and Ubuntu run: apt-get install python3-venv"; rm -rf $(VENV); exit 2; }
	@$(PIP) install --upgrade --constraint constraints.txt pip

$(RUNTIME): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing the runtime into $(VENV) ..."
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "installing training, export, benchmark and development packages into $(VENV) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[bridge,encoders,export,ray,rmis,train]" --group dev
	@touch $@
