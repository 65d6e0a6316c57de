# One environment, .venv, for everything. Needs Python 3.11 or newer; choose one with `make PYTHON=python3.12 test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,docs
REPORT ?= wardround-demo.html
STAMP := $(VENV)/installed-$(EXTRAS).stamp

.PHONY: demo test check bench docs clean
.DEFAULT_GOAL := demo

demo: $(STAMP)  ## A study on real patients of four hospitals, from nothing to a report.
	$(BIN)/wardround demo --report "$(REPORT)"

test: $(STAMP)  ## Every test, the slow and the end-to-end ones too.
	$(BIN)/python -m pytest

check: $(STAMP)  ## Format, lint, types, direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## Measured against the peers in the same run.
	$(BIN)/python -m benchmarks

docs: $(STAMP)  ## The documentation as HTML.
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV)

# Installed anew only when the requirements change.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Wardround needs Python 3.11 or newer, and '$(PYTHON)' is not: install one and run 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "cannot make an environment: install Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
