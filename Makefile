# `make demo` is the first thing to run. On Windows use the PowerShell lines of README.md instead.
PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

# Pins hold for the libraries and for the isolated build of this package; older and newer pips read different names.
# The paths are relative on purpose: pip splits these variables at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint dashboard notebook bench docs chromium

help:
	@echo "make demo        install into .venv, train a small brain on real text and a solver of puzzles, show both"
	@echo "make dashboard   look at the runs in a browser (127.0.0.1 only)"
	@echo "make notebook    open JupyterLab on the notebooks"
	@echo "make test        all tests; PYTEST_ARGS='tests/store -k lock' for some of them, '-n 0' for one process"
	@echo "make lint        ruff, import layers, mypy"
	@echo "make bench       measure training and generation on this machine"
	@echo "make docs        write docs/flags.md and docs/metrics.md from the declarations in the code"

demo: .venv/installed
	@$(BIN)/lab run quickstart
	@echo
	@$(BIN)/lab run puzzles

dashboard: .venv/installed
	@$(BIN)/lab dashboard

notebook: .venv/installed
	@$(BIN)/lab notebook

bench: .venv/installed
	@$(BIN)/python -m bench

docs: .venv/installed
	@$(BIN)/python docs/generate.py

# The tests start hundreds of processes: none of them compiles our code again.
test: export PYTHONDONTWRITEBYTECODE :=
test: .venv/installed-test chromium
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

chromium: .venv/installed-test
	@$(BIN)/python tests/chromium.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "HRM Lab needs Python 3.11 or newer, \
	and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

# The stamps lie in .venv: removing the folder is a full reset. pyproject.toml and the pins are what an installation
# depends on; the code itself is installed in place.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (some minutes the first time) ..."
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

.venv/installed-test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv with the test tools (some minutes the first time) ..."
	@$(BIN)/python -m pip install -qq --editable '.[test]'
	@touch $@ .venv/installed
