# What a newcomer needs: `make demo`, `make test`. Each sets itself up in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-run demo test lint format proto docs serve image bench-service train-zoo clean

help:  ## Show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plot]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plot,training,dev]'
	@touch $@

setup: $(VENV)/.dev  ## Install everything into .venv

demo: $(VENV)/.run  ## Start the service and show what the shipped model has learned
	deploy/demo.sh $(VENV) demo-output

test: $(VENV)/.dev  ## Run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(VENV)/.run  ## Run the service in the foreground
	NEUROFV_LOG_FORMAT=console $(BIN)/neurofv-server

clean:  ## Remove what was made
	rm -rf $(VENV) demo-output build dist *.egg-info client/*.egg-info
