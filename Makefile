# One environment, .venv, for everything. Needs Python 3.11 or newer; choose one with `make PYTHON=python3.12 test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REPORT ?= wardround-demo.html

.PHONY: demo test check bench docs clean
.DEFAULT_GOAL := demo

demo: $(VENV)/with-demo.stamp  ## A study on real patients of four hospitals, from nothing to a report.
	@$(BIN)/wardround demo --report "$(REPORT)"

test: $(VENV)/with-dev.stamp  ## Every test, the slow and the end-to-end ones too.
	$(BIN)/python -m pytest

check: $(VENV)/with-dev.stamp  ## Format, lint, types, direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/with-flower.stamp  ## Measured against the peers in the same run.
	$(BIN)/python -m benchmarks

docs: $(VENV)/with-docs.stamp  ## The documentation as HTML.
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Wardround needs Python 3.11 or newer, which '$(PYTHON)' is not: install it, then 'make PYTHON=python3.12 ...'" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "No environment can be made: install Python's venv module (Debian: apt-get install python3-venv)" >&2; \
	  exit 1; }

# An extra of pyproject.toml; installed anew only when the requirements change.
$(VENV)/with-%.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing wardround[$*] into $(VENV); the first time takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@

# Its requirements would take older releases than those that are tested here; the extra `bench` has what is needed of them.
$(VENV)/with-flower.stamp: $(VENV)/with-bench.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps flwr
	@touch $@
