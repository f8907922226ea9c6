# Every target works in a fresh clone on a machine with Python 3.11 or newer, pip and make. See `make help`.

.DEFAULT_GOAL := help
.PHONY: help setup run test conformance check load compare constraints clean
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first interpreter on PATH that is new enough; `make PYTHON=/path/to/python3.12 setup` chooses another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name && break; done)
endif

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_LOAD := $(VENV)/.installed-load

# Names and versions only: where a package came from is each machine's own business.
define PINS
import json, sys
found = [entry["metadata"] for entry in json.load(sys.stdin)["install"]]
print("# Written by `make constraints`; pip reads it as the exact versions to use.")
for pin in sorted(package["name"].lower() + "==" + package["version"] for package in found):
    if not pin.startswith("backpressure-proxy=="):
        print(pin)
endef
export PINS

# What is passed on: make test PYTEST_ARGS='tests/core -k bucket', make load LOAD_ARGS='--seconds 10', …
PYTEST_ARGS ?=
LOAD_ARGS ?=
COMPARE_ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Create .venv and install the product (editable) with its development tools
	@echo "Ready: $(BIN)/backpressure"

run: $(INSTALLED) ## Start the simulated upstream and the proxy in front of it (Ctrl-C ends both)
	@echo "Starting the demo: a simulated upstream and the proxy in front of it"
	@exec $(BIN)/backpressure demo

test: $(INSTALLED) ## Run the whole test suite
	@echo "Running the test suite"
	@$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

conformance: $(INSTALLED) ## Run the relay's conformance cases and print the table of them
	@echo "Running the conformance cases of the relay"
	@$(BIN)/python -m pytest -n auto -q tests/relay $(PYTEST_ARGS)

check: $(INSTALLED) ## Lint, formatting, types, import layers
	@echo "Checking lint, formatting, types and import layers"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

load: $(INSTALLED_LOAD) ## Overload the proxy with locust at 3x capacity for 30 s and print what came of it
	@echo "Overloading the proxy: 3x the upstream's capacity for 30 s"
	@exec $(BIN)/python -m loadtests.load $(LOAD_ARGS)

compare: $(INSTALLED) ## Measure forwarding and refusing beside Envoy and, when on PATH, nginx and HAProxy
	@echo "Comparing with other proxies on one core"
	@exec $(BIN)/python -m loadtests.compare $(COMPARE_ARGS)

constraints: $(INSTALLED) ## Resolve the newest allowed versions of all dependencies into constraints.txt
	@echo "Resolving the newest allowed versions into constraints.txt"
	@mkdir -p build
	@$(PIP) install --quiet --dry-run --ignore-installed --report build/resolved.json '.[dev,load]'
	@$(BIN)/python -c "$$PINS" < build/resolved.json > build/constraints.txt
	@mv build/constraints.txt constraints.txt

clean: ## Remove .venv, caches, builds and results of load tests
	@echo "Removing .venv, caches, builds and results"
	@rm -rf $(VENV) build dist *.egg-info loadtests/results
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an interrupted set-up is done again.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found on PATH" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is older than Python 3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute)"
	@# Debian ships venv without ensurepip: then the pip outside fetches the one inside.
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| $(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(INSTALLED_LOAD): $(INSTALLED)
	@echo "Installing locust into $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,load]'
	@touch $@
