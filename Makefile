# Everything a newcomer needs: `make run` starts Parley, `make test` checks it. Both set up what they need first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help setup run test test-all check format bench packages clean

help:  ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv with everything Parley needs

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Parley needs Python 3.11: '$(PYTHON)' was not found. Install it, or name yours: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) infra/make_venv.py $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,training]'
	@touch $@

run: setup  ## start Parley on http://127.0.0.1:8080
	@$(BIN)/parley serve

packages:  ## install the Debian packages the tests need
	@sh infra/debian_packages.sh

check: setup  ## lint, format, types, import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: packages check  ## check and run the tests
	$(BIN)/python -m pytest -q -m "not slow" --durations=25 --cov --cov-report= --cov-fail-under=0
	$(BIN)/coverage report --show-missing

test-all: packages check  ## the tests, and the slow ones
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,training,ray]'
	$(BIN)/python -m pytest -q --cov --cov-report= --cov-fail-under=0
	$(BIN)/coverage report --show-missing

bench: bench-answering_machine bench-voice_to_voice bench-duplex bench-engine bench-engine_alone bench-knowledge bench-sip bench-state bench-turns  ## measure; tables here, JSON and plots in build/bench

bench-%: setup packages
	$(BIN)/python -m tests.bench.$*

format: setup  ## put the source in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage
