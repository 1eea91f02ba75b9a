# Two commands: `make demo` and `make test`. They need Python 3.11 or newer and make; the rest they install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench fixtures clean

demo: $(VENV)/.sample
	@$(BIN)/python -m sample_project.demo

test: $(VENV)/.test
	@$(BIN)/python -m tests.matrix

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fixtures: $(VENV)/.sample
	@$(BIN)/python -m sample_project.dumping

bench: $(VENV)/.test
	$(BIN)/python benchmarks/orders.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reconcile needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.sample: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --editable '.[sample]'
	@touch $@

# The servers' drivers are wanted, not needed: without one its database is left out, and the tests say so.
$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --editable '.[test]'
	@$(BIN)/python -m pip install --quiet --editable '.[postgresql]' || echo "No PostgreSQL driver could be installed."
	@$(BIN)/python -m pip install --quiet --editable '.[mysql]' 2> $(VENV)/mysql.log || echo "No MariaDB driver could be installed (see $(VENV)/mysql.log)."
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo.sqlite3* test-*.sqlite3 .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
