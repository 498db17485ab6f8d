# The two commands of the README: `make demo` and `make test`. Everything else is for those who work here.
# Only python3 (3.11 to 3.13, with venv and pip) and make are expected. PYTHON= chooses another interpreter, VENV= another place.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CODE   := $(wildcard src tests examples benchmarks)
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint unit browser races bench focus test-lowest test-matrix clean

help:
	@echo "make demo         a runaway agent, stopped at its budget"
	@echo "make test         everything that must pass: ruff, mypy, import-linter, pytest with coverage"
	@echo "make lint         the static half of it        make unit   the tests with coverage"
	@echo "make bench        the benchmarks and their bars"
	@echo "make focus        FOCUS exports under the FinOps Foundation's validator; FILE=focus.csv: one of yours"
	@echo "make test-lowest  the tests on the lowest supported versions"
	@echo "make test-matrix  the tests on every supported Python found here"

# --- set-up: one stamp per extra, renewed when pyproject.toml changes -----------------------------------------------

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v}: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

# --- the two commands -----------------------------------------------------------------------------------------------

demo: $(VENV)/.stamp-examples
	$(BIN)/python examples/runaway_agent.py $(ARGS)

test: lint unit races

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

COVERAGE := --cov --cov-report=term:skip-covered
unit: $(VENV)/.stamp-test browser
	$(PYTEST) -n 2 -m "not race" $(COVERAGE)

# The tests of HTML pages run in a browser of Chromium's family: the one that AGENTBUDGET_TEST_BROWSER names, or one that
# is installed. Where there is none, Debian's is installed if that can be; else those tests are skipped (in CI they fail).
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable microsoft-edge msedge chrome
browser:
	@for name in "$$AGENTBUDGET_TEST_BROWSER" $(BROWSERS); do command -v "$$name" >/dev/null 2>&1 && exit 0; done; \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || \
	echo "no Chromium, Chrome or Edge on the path, and none could be installed: without one the tests of HTML pages are skipped"

# These set a line tracer of their own in their threads, so they cannot share the process with coverage.
races: $(VENV)/.stamp-test
	$(PYTEST) -m race

# --- more -----------------------------------------------------------------------------------------------------------

bench: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks

# The FinOps Foundation's validator needs Python 3.12 and some 600 MB, so it has an environment of its own.
FOCUS := $(VENV)-focus
focus: $(VENV)/.stamp-test
	test -x $(FOCUS)/bin/focus-validator || { python3.12 -m venv $(FOCUS) && $(FOCUS)/bin/python -m pip install --quiet --disable-pip-version-check 'focus-validator==2.2.1' 'pyarrow<22'; }
	$(BIN)/python tests/finops/focus_gate.py $(abspath $(FOCUS))/bin/python $(FILE)

LOWEST := $(VENV)-lowest
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/lowest.txt --editable ".[test]"
	$(LOWEST)/bin/python -m pytest -n 2 -m "not race" --ignore=tests/architecture
	$(LOWEST)/bin/python -m pytest -m race

# An interpreter is python3.12 on the path, or pyenv's. Where there is none of the two the target fails: it tested nothing.
# Coverage is `make test`'s to measure; without it the tests take half of the time.
test-matrix:
	@tested=""; for version in 3.12 3.13; do \
	  python=$$(command -v python$$version) && $$python --version >/dev/null 2>&1 || \
	    python=$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python$$version 2>/dev/null | sort -V | tail -n 1); \
	  if test -n "$$python"; then \
	    $(MAKE) --no-print-directory unit races PYTHON="$$python" VENV=$(VENV)-$$version COVERAGE= || exit 1; tested="$$tested $$version"; \
	  else echo "python$$version not found, skipped"; fi; \
	done; test -n "$$tested" && echo "tested on$$tested"

clean:
	rm -rf $(VENV) $(VENV)-* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.* traces
