# Every target works in a fresh clone on a machine with Python 3.11 or newer, pip and make. See `make help`.

.DEFAULT_GOAL := help
.PHONY: help compile setup run test test-agents clients test-compiled conformance fuzz check load soak replicas simulate simulate-replicas counting decisions compare compare-builds compare-overload compare-replicas profile constraints clean
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
COMPILED := build/compiled
COMPILED_STAMP := $(COMPILED)/.compiled
# What is measured is what is shipped: the compiled build.
MEASURE := exec env PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/python -m
INSTALLED_FUZZ := $(VENV)/.installed-fuzz

# Each real client of tests/clients in an environment of its own: some do not go together, none goes into ours.
CLIENTS := build/clients
INSTALLED_CLIENTS := $(CLIENTS)/python/.installed $(CLIENTS)/mcp1/.installed
AGENTS := build/agents

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

# The tests that see the proxy from outside. Six files look inside it, and put their own parts there.
BLACK_BOX := tests/relay tests/app tests/clients tests/process \
	--ignore=tests/app/test_cancellation.py --ignore=tests/app/test_crash.py --ignore=tests/app/test_served.py \
	--ignore=tests/app/test_retries_cancelled.py --ignore=tests/app/test_cut_answers_cancelled.py \
	--ignore=tests/clients/test_real_clients.py

# What is passed on: make test PYTEST_ARGS='tests/core -k bucket', make load LOAD_ARGS='--seconds 10', …
PYTEST_ARGS ?=
CLIENTS_ARGS ?=
LOAD_ARGS ?=
SOAK_ARGS ?=
REPLICAS_ARGS ?=
SIMULATE_ARGS ?=
DECISIONS_ARGS ?=
COUNTING_ARGS ?=
COMPARE_ARGS ?=
BUILDS ?=
PROFILE_ARGS ?=
FUZZ_ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

compile: $(COMPILED_STAMP) ## Compile the modules of the fast path into build/compiled (mypyc; needs a C compiler)
	@echo "Ready: PYTHONPATH=$(COMPILED) $(BIN)/backpressure"

setup: $(INSTALLED) ## Create .venv and install the product (editable) with its development tools
	@echo "Ready: $(BIN)/backpressure"

run: $(INSTALLED) ## Start the simulated upstream and the proxy in front of it (Ctrl-C ends both)
	@echo "Starting the demo: a simulated upstream and the proxy in front of it"
	@exec $(BIN)/backpressure demo

test: $(INSTALLED) $(INSTALLED_CLIENTS) ## Run the whole test suite, with the real clients of the package index
	@echo "Running the test suite"
	@$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

test-agents: $(INSTALLED) $(AGENTS)/.installed ## Run the SDKs and agents of npm against the proxy (needs node 20 and npm)
	@echo "Running the SDKs and agents of npm against the proxy"
	@BACKPRESSURE_AGENTS=1 $(BIN)/python -m pytest -n auto tests/clients/test_agents.py $(PYTEST_ARGS)

clients: $(INSTALLED) $(INSTALLED_CLIENTS) $(AGENTS)/.installed ## Play every real client and write docs/clients.md (CLIENTS_ARGS='openai litellm')
	@echo "Playing the real clients and writing docs/clients.md"
	@$(BIN)/python -m tests.clients.table $(CLIENTS_ARGS)

conformance: $(INSTALLED) ## Run the relay's conformance cases and print the table of them
	@echo "Running the conformance cases of the relay"
	@$(BIN)/python -m pytest -n auto -q tests/relay $(PYTEST_ARGS)

fuzz: $(INSTALLED_FUZZ) ## Fuzz the readers of upstreams' answers and of bodies, a minute each, guided by coverage (atheris)
	@echo "Fuzzing the readers of answers and of bodies; FUZZ_ARGS=-max_total_time=600 goes on for longer"
	@mkdir -p build
	@$(BIN)/python -m tests.fuzz.fuzz_answer -max_total_time=60 -artifact_prefix=build/fuzz- $(FUZZ_ARGS)
	@exec $(BIN)/python -m tests.fuzz.fuzz_dialects -max_total_time=60 -artifact_prefix=build/fuzz- $(FUZZ_ARGS)

test-compiled: $(COMPILED_STAMP) ## Run the tests that see the proxy from outside against the compiled build
	@echo "Running the black-box tests against the compiled build"
	@PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/python -m pytest -n auto -q -o pythonpath="$(COMPILED) ." $(BLACK_BOX)

check: $(INSTALLED) ## Lint, formatting, types, import layers
	@echo "Checking lint, formatting, types and import layers"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

load: $(INSTALLED_LOAD) $(COMPILED_STAMP) ## Overload the proxy with locust at 3x capacity for 30 s and print what came of it
	@echo "Overloading the proxy: 3x the upstream's capacity for 30 s"
	@$(MEASURE) loadtests.load $(LOAD_ARGS)

soak: $(INSTALLED) $(COMPILED_STAMP) ## Load at 80 % of capacity for 10 minutes while faults come and go; exit 1 if anything leaked
	@echo "Soaking the proxy: 80 % load for 10 minutes while faults come and go"
	@$(MEASURE) loadtests.soak $(SOAK_ARGS)

replicas: $(INSTALLED) $(COMPILED_STAMP) ## Show that replicas keep one set of limits through a real Redis, and what it costs (12 minutes)
	@echo "Loading replicas that share a Redis (REPLICAS_ARGS='--quick' for a look, '--only bucket-4,cost' for some)"
	@$(MEASURE) loadtests.replicas $(REPLICAS_ARGS)

simulate: $(INSTALLED_LOAD) $(COMPILED_STAMP) ## Simulate hours of overload on the real core; print every goal beside what was found
	@echo "Simulating overload (SIMULATE_ARGS='--quick' for a look, '--seeds 100' for the full grid)"
	@exec env PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) $(BIN)/python -P -m loadtests.simulate $(SIMULATE_ARGS)

simulate-replicas: $(INSTALLED) $(COMPILED_STAMP) ## Simulate replicas that share one ledger: exactness, use and trips over many seeds
	@echo "Simulating replicas (SIMULATE_ARGS='--seeds 100' for many)"
	@exec env PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) $(BIN)/python -P -m loadtests.simulate_replicas $(SIMULATE_ARGS)

counting: $(INSTALLED) $(COMPILED_STAMP) ## Print what counting tokens costs a call and an event, interpreted and compiled
	@echo "Measuring the counting of tokens beside the same without it"
	@$(BIN)/python -m loadtests.counting $(COUNTING_ARGS)
	@env PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) $(BIN)/python -P -m loadtests.counting $(COUNTING_ARGS)

decisions: $(INSTALLED) $(COMPILED_STAMP) ## Print what one decision of the gate costs with 10 to 10,000 waiting, interpreted and compiled
	@echo "Measuring single decisions with 10, 100, 1,000 and 10,000 waiting"
	@$(BIN)/python -m loadtests.decisions $(DECISIONS_ARGS)
	@env PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) $(BIN)/python -P -m loadtests.decisions $(DECISIONS_ARGS)

compare: $(INSTALLED_LOAD) $(COMPILED_STAMP) ## Measure every case of docs/benchmarks.md beside Envoy and, when on PATH, nginx and HAProxy
	@echo "Comparing with other proxies on one core"
	@$(MEASURE) loadtests.compare $(COMPARE_ARGS)

compare-builds: $(INSTALLED) ## Show what a change costs: compiled builds of ours in turn (BUILDS='before=FOLDER,now=FOLDER')
	@echo "Comparing builds of ours (about a minute a case)"
	@exec $(BIN)/python -m loadtests.builds --builds '$(BUILDS)' $(COMPARE_ARGS)

compare-overload: $(INSTALLED_LOAD) $(COMPILED_STAMP) ## Offer 0.5 to 10 times what the upstream can do, beside the same peers
	@echo "Comparing with other proxies under overload (about 40 minutes; COMPARE_ARGS='--rounds 1' for a look)"
	@$(MEASURE) loadtests.compare_overload $(COMPARE_ARGS)

compare-replicas: $(INSTALLED) $(COMPILED_STAMP) ## Show how exactly two replicas keep one limit, beside two of LiteLLM's where it is installed
	@echo "Comparing with LiteLLM over one Redis (about 20 minutes; COMPARE_ARGS='--quick' for a look)"
	@$(MEASURE) loadtests.replicas.beside $(COMPARE_ARGS)

profile: $(INSTALLED_LOAD) ## Show where a call's microseconds go, by layer and by function
	@echo "Sampling the proxy under load"
	@exec $(BIN)/python -m loadtests.profiling $(PROFILE_ARGS)

constraints: $(INSTALLED) ## Resolve the newest allowed versions of all dependencies into constraints.txt
	@echo "Resolving the newest allowed versions into constraints.txt"
	@mkdir -p build
	@$(PIP) install --quiet --dry-run --ignore-installed --report build/resolved.json '.[dev,load,fuzz]'
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

$(CLIENTS)/%/.installed: tests/clients/requirements/%.txt constraints.txt $(INSTALLED)
	@echo "Installing the clients of $< into $(@D) (once; about a minute)"
	@test -x $(@D)/bin/python || $(BIN)/python -m venv --without-pip $(@D)
	@# What is not imported need not be compiled: that is half of the time.
	@$(PIP) --python $(@D)/bin/python install --quiet --no-compile --requirement $<
	@touch $@

# Without node or a package the stamp is missing, and the tests say so and leave them out.
$(AGENTS)/.installed: tests/clients/requirements/agents.txt
	@echo "Installing the SDKs and agents of $< into $(@D) (once; about a minute)"
	@mkdir -p $(@D)
	@if npm install --no-package-lock --no-audit --no-fund --silent --prefix $(@D) $$(cat $<); then touch $@; \
		else echo "npm or one of its packages is not to be had: they are left out" >&2; fi

$(COMPILED_STAMP): $(INSTALLED) setup.py $(shell find proxy -name '*.py')
	@echo "Compiling the fast path (about a minute)"
	@rm -rf $(COMPILED) build/lib build/lib.* build/temp.* build/bdist.*
	@BACKPRESSURE_COMPILE=1 $(PIP) install --quiet --no-deps --no-build-isolation --target $(COMPILED) .
	@touch $@

$(INSTALLED_LOAD): $(INSTALLED)
	@echo "Installing locust, matplotlib and py-spy into $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,load]'
	@touch $@

$(INSTALLED_FUZZ): $(INSTALLED)
	@echo "Installing atheris into $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	@touch $@
