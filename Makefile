# The commands of the project. Each does its own set-up: a fresh machine needs Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help run test lint bench validate chaos docs lock clean

help:  ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

run: $(READY)  ## Ingest local logs (or demo data), materialize, serve, Dagster UI; Ctrl-C ends all
	@exec $(BIN)/sb up

test: $(READY)  ## All tests, in parallel
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)  ## Format check, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## Measure speed and memory; writes docs/performance.md
	$(BIN)/python -m tests.bench

validate: $(READY)  ## Simulate what the statistics promise; prints a table, fails below a bar
	$(BIN)/python -m tests.validate

chaos: $(READY)  ## Kill recorders, migrations, ingest and each step of a refresh; look for losses
	$(BIN)/python -m tests.chaos.chaos_migrate 50
	$(BIN)/python -m tests.chaos.chaos_recorder 20
	$(BIN)/python -m tests.chaos.chaos_ingest 10
	$(BIN)/python -m tests.chaos.chaos_refresh 10
	if [ "$$(id -u)" = 0 ]; then $(BIN)/python -m tests.chaos.chaos_disk; fi

docs: $(READY)  ## Check the documents against the code
	$(BIN)/python -m pytest tests/test_docs.py

lock:  ## Renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 pyproject.toml --group dev -o requirements.lock

clean:  ## Remove what the commands above made in this folder
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
