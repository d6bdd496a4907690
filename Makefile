# For GNU Make 3.81 and newer. Every target does its own set-up, in .venv; nothing is installed outside this folder.

PYTHONS := python3.14 python3.13 python3.12 python3.11 python3
BIN := .venv/bin
PEERS := .venv-peers/bin
# What test-python runs on.
PYTHON ?= python3
VERSION := $(patsubst python%,%,$(notdir $(PYTHON)))
EXTRAS := embedded,cli,websocket,postgres,uvloop,reload
TESTS := tests/unit tests/conformance tests/integration tests/chaos
# Most tests wait for something most of the time, so there are more workers than processors.
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 4 ? 2 * n : 8)))
TOGETHER := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# What a mistake in would be found last: every branch of it is tested.
WHOLLY_COVERED := hyperbus/event/codec.py,hyperbus/event/routing.py,hyperbus/declaration/retry_policy.py,hyperbus/runtime/outcomes/retry_or_dead_letter.py,hyperbus/declaration/outcome.py

# -qq below: errors are shown, warnings about the machine's own pip settings are not.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# What takes too long for every day: a million pending entries, ten million events, a thousand cuts, half a minute of load.
LONG := HYPERBUS_TEST_LONG=1 HYPERBUS_TEST_CUTS=1000 HYPERBUS_TEST_RETENTION_EVENTS=10000000 HYPERBUS_TEST_LOAD_SECONDS=30 HYPERBUS_TEST_EVIL_SECONDS=60
LONG_TESTS := $(addprefix tests/integration/test_,found_refusals.py found_ended_in_good_order.py found_evil_events.py recovery.py publish_once.py rolling.py cli_run.py retention_servers.py found_many_streams.py found_unfair.py)

.PHONY: help install demo test test-long test-python check static ruff mypy pyright imports unit fuzz chaos bench bench-peers up down

help:
	@echo 'make demo [SECONDS=20] [RATE=600]   everything at work, live; without SECONDS until Ctrl-C'
	@echo 'make test                           every check and test, with coverage'
	@echo 'make test-long                      the tests that have a long form, in that form; ten minutes'
	@echo 'make test-python PYTHON=python3.13  unit and conformance tests on another Python'
	@echo 'make check                          static checks and unit tests: the quick round'
	@echo 'make fuzz [MINUTES=20] [SEED=7]     new examples for the property tests, until one breaks them'
	@echo 'make chaos [MINUTES=30] [SEED=7]    everything broken at random; nothing may be lost'
	@echo 'make bench [QUICK=1] [FULL=1]       throughput, latency, memory, against bars; 10 minutes, 1, or everything'
	@echo 'make bench-peers                    throughput beside other Python libraries'
	@echo 'make up, make down                  the whole thing in Docker: start, stop'
	@echo 'make install                        only set up .venv'

install: .venv/.installed-dev

demo: .venv/.installed
	@$(BIN)/hyperbus demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RATE),--rate $(RATE))

# The report comes before the limits, and the limits come last: failing tests are told of first.
test: static
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q $(TOGETHER) -m 'not alone' $(TESTS)
	@$(BIN)/coverage run -m pytest -q -m alone $(TESTS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --fail-under=90
	@$(BIN)/coverage report --include=$(WHOLLY_COVERED) --fail-under=100

test-long: .venv/.installed-dev
	@$(LONG) $(BIN)/python -m pytest -v -s $(LONG_TESTS)

# Another Python has an environment of its own, named after it: .venv-3.13.
test-python: .venv-$(VERSION)/.installed
	@.venv-$(VERSION)/bin/python -m pytest -q $(TOGETHER) -m 'not alone' tests/unit tests/conformance

check: static unit

# Side by side.
static: .venv/.installed-dev
	@$(MAKE) --no-print-directory -k -j 4 ruff mypy pyright imports

ruff: .venv/.installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo 'make: format with $(BIN)/ruff format' >&2; exit 1; }

mypy: .venv/.installed-dev
	@$(BIN)/mypy

pyright: .venv/.installed-dev
	@$(BIN)/pyright --pythonpath $(BIN)/python tests/typing/api.py

imports: .venv/.installed-dev
	@$(BIN)/lint-imports --no-logo

unit: .venv/.installed-dev
	@$(BIN)/python -m pytest -q tests/unit

fuzz: .venv/.installed-dev
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

chaos: .venv/.installed
	@$(BIN)/python -m tests.chaos.run --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

# One of the peers takes part in it: some bars are multiples of its figures.
bench: .venv/.installed .venv-peers/.installed
	@$(BIN)/python -m benchmarks.run $(if $(FULL),--full,$(if $(QUICK),--quick)) --peers $(PEERS)/python

bench-peers: .venv/.installed .venv-peers/.installed
	@$(BIN)/python -m benchmarks.run --peers $(PEERS)/python --all-peers

up:
	@docker compose up -d --build

down:
	@docker compose down

# A candidate has to run and to bring venv: a name on the PATH may be a shim of something that is not there.
.venv/.installed: pyproject.toml
	@found=; without=; \
	for candidate in $(PYTHONS); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  without=$${without:-$$candidate}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$without" ]; then \
	  echo "make: $$without has no venv; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo 'make: no Python 3.11 or newer found; install one, with venv' >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  echo "Setting up .venv with $$found"; \
	  "$$found" -m venv --clear .venv || exit 1; \
	fi
	@echo 'Installing hyperbus into .venv'
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --editable '.[$(EXTRAS)]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo 'Installing the tools for development into .venv'
	@$(BIN)/python -m pip install -qq --group dev
	@touch $@

.venv-$(VERSION)/.installed: pyproject.toml
	@echo "Setting up .venv-$(VERSION) with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv-$(VERSION)
	@.venv-$(VERSION)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	@.venv-$(VERSION)/bin/python -m pip install -qq --editable '.[$(EXTRAS)]'
	@.venv-$(VERSION)/bin/python -m pip install -qq --group test
	@touch $@

# Other libraries, pinned, away from ours. What has no package for this machine is left out, with a message.
.venv-peers/.installed: benchmarks/peers/requirements.txt benchmarks/peers/requirements-arq.txt | .venv/.installed
	@echo 'Installing the peers into .venv-peers'
	@$(BIN)/python -m venv --clear .venv-peers
	@echo '*' > .venv-peers/.gitignore
	@$(PEERS)/python -m pip install -qq --target .venv-peers/arq -r benchmarks/peers/requirements-arq.txt || \
	echo 'make: left out: arq' >&2
	@$(PEERS)/python -m pip install -qq -r $< || \
	grep -v '^#' $< | while read -r peer; do \
	  $(PEERS)/python -m pip install -qq -c $< "$$peer" || echo "make: left out: $$peer" >&2; \
	done
	@touch $@
