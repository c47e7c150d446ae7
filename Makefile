# Everything that a person or CI does here starts with make. `make` alone prints what there is.

# Any CPython from 3.11 on; found by looking when not given.
PYTHON ?= $(shell .ci/find-python)
PICTURES ?=
SEED ?=
MINUTES ?=

BIN := .venv/bin
# The same in the environment of test-core, which is made on Windows too.
CORE := .venvs/core/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help .venv demo check format test test-heavy test-core test-fast test-others test-portable test-windows test-all test-wheel check-release chaos coverage bench bench-quick faults docs moving-picture screenshots public-api options
.PHONY: check-types check-darwin check-win32 check-house check-work check-style compiled
.PHONY: docs-serve clean fuzz simulate mutants held-promises

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environments ---------------------------------------------------------------------------------------------------
# Stamp files say what .venv holds, so that a second run costs nothing until pyproject.toml changes.

.venv: .venv/.dev  ## make or renew .venv with all that developing needs

.venv/.made:
	@test -n "$(PYTHON)"
	.ci/make-venv "$(PYTHON)" .venv
	@touch $@

.venv/.demo: pyproject.toml | .venv/.made
	$(BIN)/python $(PIP) --editable '.[examples]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.made
	$(BIN)/python $(PIP) --editable '.[examples,test,dev,docs]'
	@touch .venv/.demo $@

# PyTorch and text recognition, for two of the examples: a gigabyte that nothing else here needs.
.venv/.heavy: pyproject.toml | .venv/.made
	$(BIN)/python $(PIP) --editable '.[examples,test,dev,docs,examples-ocr,examples-torch]'
	@touch .venv/.demo .venv/.dev $@

# --- what to do -----------------------------------------------------------------------------------------------------

demo: .venv/.demo  ## describe real pictures on all cores; PICTURES=folder takes your own
	$(BIN)/python examples/alt_text.py $(if $(PICTURES),--pictures '$(patsubst ~%,$(HOME)%,$(PICTURES))')

# Each by itself, so that `make -j 2 check` has them side by side; the longest first.
check: check-types check-darwin check-win32 check-house check-work check-style  ## format, lint, types, layers, names, how much work a run is

check-types: .venv/.dev
	$(BIN)/mypy

# The room of the operating system: elsewhere nothing depends on it, see tests/unit/test_house_rules.py.
check-darwin: .venv/.dev
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin mpqueue/_os

check-win32: .venv/.dev
	$(BIN)/mypy --platform win32 --config-file .ci/mypy-windows.ini --cache-dir .mypy_cache/win32 mpqueue

check-house: .venv/.dev
	$(BIN)/python -m pytest -q tests/unit/test_house_rules.py tests/unit/test_declared.py

check-work: .venv/.dev
	$(BIN)/python -m benchmarks.work --check

check-style: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

# Python compiles what the tests import now, and not in each of the processes that share them.
compiled: .venv/.heavy
	$(BIN)/python -c 'import ray, torch'
	$(BIN)/python -m pytest -q --collect-only >/dev/null

format: .venv/.dev  ## format the code, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Most tests wait more than they compute, so six processes share the files, the longest first (tests/conftest.py).
SHARED := -p xdist.plugin -n 6 --dist loadfile --no-loadscope-reorder

test: .venv/.dev  ## what each commit must pass; ARGS='-n 0' runs it in one process
	$(BIN)/python -m pytest $(SHARED) $(ARGS)

test-heavy: .venv/.heavy  ## the same, and the examples with PyTorch and text recognition
	MPQUEUE_TEST_HEAVY=1 $(BIN)/python -m pytest $(SHARED) $(ARGS)

test-fast: .venv/.dev  ## the tests that take no time
	$(BIN)/python -m pytest -m 'not slow'

# Nothing but what the tests of the core import: the rest is not there for each Python on each system.
.venvs/core/.made: pyproject.toml
	@test -n "$(PYTHON)"
	@mkdir -p .venvs
	.ci/make-venv "$(PYTHON)" .venvs/core
	$(CORE)/python $(PIP) --editable '.[test-core]'
	@touch $@

test-core: .venvs/core/.made  ## what depends on version and system, with the fewest packages; PYTHON= chooses
	$(CORE)/python -m pytest tests/unit tests/contract/test_cpython_pool.py tests/integration/test_crash_table.py \
		--ignore=tests/unit/test_house_rules.py $(ARGS)

test-others: .venv/.dev  ## what depends on the version, on the first and the last other Python; with MPQUEUE_TEST_LONG on all
	.ci/test-others

test-portable: .venv/.dev  ## on Linux, what the package is on a bare POSIX system, as macOS is one
	.ci/test-portable

test-windows: .venv/.made  ## in CPython for Windows, under wine; ARGS='tests/integration/test_pool.py' runs others than the lot of each commit
	.ci/test-windows $(ARGS)

test-wheel: .venv/.made  ## build sdist and wheel into dist/, the same twice, and test the wheel where nothing else is
	.ci/test-wheel

check-release:  ## see that VERSION= can be released
	@.ci/check-release '$(VERSION)'

test-all:  ## each night: what .ci/run does, with the tests too that are too long for each commit, and all of each lot
	MPQUEUE_TEST_LONG=1 .ci/run

chaos: .venv/.dev  ## workers and programs killed at random; SEED= repeats a run, MINUTES= for each of its tests
	MPQUEUE_CHAOS_SEED='$(SEED)' MPQUEUE_CHAOS_MINUTES='$(MINUTES)' $(BIN)/python -m pytest -s --timeout=0 -o faulthandler_timeout=0 tests/chaos

simulate: .venv/.dev  ## histories of a simulated parent from SEED= on, for MINUTES=
	MPQUEUE_SIMULATION_SEED='$(or $(SEED),0)' MPQUEUE_SIMULATION_MINUTES='$(MINUTES)' $(BIN)/python -m pytest -q \
		--timeout=0 tests/simulation -k books_balance

fuzz: .venv/.dev  ## odd values for every public call; EXAMPLES= says how many of each
	MPQUEUE_FUZZ='$(or $(EXAMPLES),2000)' $(BIN)/python -m pytest --timeout=0 tests/fuzz

mutants: .venv/.dev  ## small changes of core, journal and wire: which of COUNT= do the fast tests notice? SEED= chooses
	$(BIN)/python -m tests.support.mutants --count $(or $(COUNT),300) --seed $(or $(SEED),0)

held-promises: .venv/.dev  ## write the table of the tests that hold each promise, docs/explanation/held-promises.md
	$(BIN)/python -m tests.support.promises

coverage: .venv/.dev  ## what the tests reach, workers included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# An environment of its own: what mpqueue is measured against is heavy, and would disturb the tests.
.venvs/bench/.made:
	@test -n "$(PYTHON)"
	.ci/make-venv "$(PYTHON)" .venvs/bench
	@touch $@

.venvs/bench/.bench: pyproject.toml | .venvs/bench/.made
	.venvs/bench/bin/python $(PIP) --editable '.[bench]'
	@touch $@

bench: .venvs/bench/.bench  ## measure, in an hour or so; see benchmarks/README.md. ARGS='--only noop'
	.venvs/bench/bin/python -m benchmarks.work --instructions
	.venvs/bench/bin/python -m benchmarks $(ARGS)

bench-quick: .venvs/bench/.bench  ## measure roughly, in five minutes
	.venvs/bench/bin/python -m benchmarks --quick $(ARGS)

faults: .venvs/bench/.bench  ## what becomes of the rest when one item fails: the fault matrix. ARGS='--only segfault'
	.venvs/bench/bin/python -m benchmarks.faults $(ARGS)

options: .venv/.dev  ## write what is made of the declared options: mpqueue/_keywords.py, docs/reference/options.md
	$(BIN)/python -m tests.support.option_pages

public-api: .venv/.dev  ## write the listing of public names anew, docs/reference/public-api.txt
	$(BIN)/python -m tests.support.public_names

docs: .venv/.dev  ## build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

moving-picture: .venv/.dev  ## record the pictures of the live page, docs/img/live-page.*, in a real Chromium
	$(BIN)/python -m tests.support.moving_picture

screenshots: .venv/.dev  ## take pictures of every state of the live page, out/screenshots/, in a real Chromium
	$(BIN)/python -m tests.support.screenshots $(STATES)

docs-serve: .venv/.dev  ## serve the site while writing it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:  ## remove all that was made here, .venv too
	rm -rf .venv .venvs .cache site dist build out htmlcov .coverage .coverage.* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
