# Needs python3 (3.11 or later), pip, make and git. Every target makes .venv by itself; once that is
# done, nothing here needs a network until pyproject.toml or the constraints change.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := config/constraints.txt

# What flake8-async finds and ruff's ASYNC rules do not.
ASYNC_RULES := ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC111,ASYNC112,ASYNC113,ASYNC118,ASYNC122,ASYNC123,ASYNC125,ASYNC126,ASYNC231,ASYNC232,ASYNC300,ASYNC400

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo serve test check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Speech to text on this machine, no GPU needed; ONCE=1 exits after the transcript
	@$(BIN)/voxtral-actors demo $(if $(filter-out 0 no false,$(ONCE)),--once)

serve: $(VENV)/.demo ## Run the server with the settings of the environment and of .env, if there is one
	@$(BIN)/voxtral-actors serve $(if $(wildcard .env),--env-file .env)

test: $(VENV)/.dev ## Run the tests; ARGS='-k p18' narrows them
	@$(BIN)/python -m pytest -q $(ARGS)

check: $(VENV)/.dev ## Lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@find voxtral_actors tests bench -name '*.py' -exec $(BIN)/flake8-async --enable $(ASYNC_RULES) {} +

clean: ## Remove the environment and everything generated
	@rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamps: an environment is up to date if it is newer than what it was made from.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another with PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(PINS) | $(VENV)/bin/python
	$(call install,client$(comma)sphinx)
	@touch $@

$(VENV)/.dev: pyproject.toml $(PINS) | $(VENV)/bin/python
	$(call install,dev)
	@touch $@ $(VENV)/.demo

comma := ,
define install
@echo 'Installing into $(VENV) (only this once) ...'
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c $(PINS) -e '.[$(1)]'
endef
