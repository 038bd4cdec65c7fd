# Everything a newcomer needs: `make run` starts Parley, `make test` checks it. Both set up what they need first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# The parts without clock or I/O of their own; covered completely, or the tests fail.
PURE_CORE := \
  bot/agent_keys.py bot/hosts.py bot/routing.py \
  bot/ingress/sip/destinations.py bot/ingress/sip/messages.py bot/ingress/sip/pacing.py \
  bot/ingress/sip/rates.py \
  bot/knowledge/formats.py bot/knowledge/passages.py bot/knowledge/ranking.py bot/knowledge/vectors.py bot/knowledge/words.py \
  bot/variables.py bot/voices/ranking.py \
  infra/sip/render.py infra/sip/settings.py \
  model_runtime/chat.py model_runtime/interleave.py model_runtime/protocol.py model_runtime/tokens.py \
  pipeline/answering_machine.py pipeline/concealment.py pipeline/interjection.py pipeline/keypad.py pipeline/ledger.py \
  pipeline/memory/address.py pipeline/nearness.py pipeline/onset.py pipeline/segmenter.py pipeline/tones.py pipeline/volume.py \
  pipeline/turn_end.py pipeline/turns/__init__.py pipeline/turns/clock.py pipeline/turns/events.py pipeline/turns/machine.py \
  pipeline/turns/overlap.py pipeline/turns/settings.py \
  pipeline/tools/consent.py pipeline/tools/ledger.py pipeline/tools/permission.py
nothing :=
space := $(nothing) $(nothing)
comma := ,

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
	$(BIN)/python -m pytest -q -m "not slow" --durations=25 --cov=bot --cov=pipeline --cov=model_runtime --cov=infra --cov-report=
	$(BIN)/coverage report --include='$(subst $(space),$(comma),$(strip $(PURE_CORE)))' --fail-under=100 --show-missing

test-all: packages check  ## the tests, and the slow ones
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,training,ray]'
	$(BIN)/python -m pytest -q --cov=bot --cov=pipeline --cov=model_runtime --cov=infra --cov-report=
	$(BIN)/coverage report --include='$(subst $(space),$(comma),$(strip $(PURE_CORE)))' --fail-under=100 --show-missing

bench: bench-answering_machine bench-voice_to_voice bench-duplex bench-engine bench-engine_alone bench-knowledge bench-sip bench-state  ## measure; tables here, JSON and plots in build/bench

bench-%: setup packages
	$(BIN)/python -m tests.bench.$*

format: setup  ## put the source in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage
