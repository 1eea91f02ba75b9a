# They need Python 3.11 or newer and make; the rest they install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-all coverage check extras bench fixtures clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r goal does; do printf '  make %-10s %s\n' "$$goal" "$$does"; done

demo: $(VENV)/.sample ## a shop with 2,000 orders on SQLite: check, nightly job, plan, repair, clean
	@$(BIN)/python -m sample_project.demo

test: $(VENV)/.test ## the tests on SQLite, and on PostgreSQL what only a server can show
	@$(BIN)/python -m tests.matrix quick

test-all: $(VENV)/.servers ## the tests on SQLite, PostgreSQL and MariaDB
	@$(BIN)/python -m tests.matrix all

coverage: $(VENV)/.servers ## the same, with the branches that they reach; 95 % are needed
	@rm -f .coverage .coverage.*
	@COVERAGE=1 $(BIN)/python -m tests.matrix all
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report

check: $(VENV)/.dev ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

extras: ## each extra in an environment that has nothing else
	@$(PYTHON) -m tests.extras

bench: $(VENV)/.test ## the benchmark of orders, on the database of DATABASE_URL
	$(BIN)/python benchmarks/orders.py

fixtures: $(VENV)/.sample ## write the shop's fixtures anew
	@$(BIN)/python -m sample_project.dumping

clean: ## remove the environment and what tests and demo have left
	rm -rf $(VENV) $(VENV)-* demo.sqlite3* test-*.sqlite3* .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reconcile needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.sample: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[sample]'
	@touch $@

# The servers' drivers are wanted, not needed: without one its database is left out, and the tests say so.
$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[test,postgresql]' || { $(PIP) --editable '.[test]' && echo "No PostgreSQL driver could be installed."; }
	@touch $@

$(VENV)/.servers: $(VENV)/.test
	@$(PIP) --editable '.[test,mysql]' 2> $(VENV)/mysql.log || echo "No MariaDB driver could be installed (see $(VENV)/mysql.log)."
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@$(PIP) --editable '.[dev]'
	@touch $@
