# The commands of this project; each makes the environment that it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
VLLM_VENV := .venv-vllm
LISTEN ?= 127.0.0.1:9108

.PHONY: help venv demo test test-vllm lint docs bench lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) ## make .venv and install

$(STAMP): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=python3.12, say"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## the daemon on the simulator, under synthetic traffic; LISTEN=HOST:PORT moves it
	$(BIN)/vllm-exporter demo --listen $(LISTEN)

lint: $(STAMP) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## everything that needs no engine and no network service
	$(BIN)/pytest $(ARGS)

test-vllm: $(STAMP) ## the integration tests against a real vLLM on the CPU
	$(BIN)/python tests/vllm/environment.py --venv $(VLLM_VENV)
	VLLM_EXPORTER_TEST_VLLM=$(CURDIR)/$(VLLM_VENV)/bin/vllm $(BIN)/pytest tests/vllm -m vllm $(ARGS)

bench: $(STAMP) ## speed as ratios to named peers
	$(BIN)/python -m bench

docs: $(STAMP) ## write the generated tables into the README
	$(BIN)/python -m exporter.docs README.md

lock: ## newest versions of every dependency, with hashes
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --group dev --group build --output-file requirements-dev.lock

clean: ## remove what the other commands made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
