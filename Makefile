# What a newcomer needs: `make demo`, `make test`. Each sets itself up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

# Threads that wait for each other sleep instead of spinning: other work on the cores then costs little.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo audit-demo test lint format proto docs viewer serve image images sbom bench-service bench-speed bench-imports bench-peers bench-shortcuts soak bench-reliability study study-quick train clean

help:  ## Show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# The client is installed by itself too: its plain path wins over a folder that happens to be called neurofv.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plot,audit]' -e ./client
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plot,audit,tracing,gpu,postgres,training,study,torchserve,dev]' -e ./client
	@touch $@

setup: $(VENV)/.dev  ## Install everything into .venv

demo: $(VENV)/.run  ## Start the service and show what the shipped model has learned
	deploy/demo.sh $(VENV) demo-output

audit-demo: $(VENV)/.run  ## Audit two models of the zoo (10 minutes); writes audit-demo-output
	deploy/audit-demo.sh $(VENV) audit-demo-output $(COHORT)

test: $(VENV)/.dev  ## Run the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev  ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/released.binpb
	$(BIN)/python docs/make_reference.py --check

format: $(VENV)/.dev  ## Put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Asked once, at set-up: without npm the page at /ui says how to add the viewer.
$(VENV)/.viewer: | $(VENV)/.run
	@$(BIN)/python -m neurofv.viewer || echo 'The service runs without it; `make viewer` tries again.'
	@touch $@

serve: $(VENV)/.run $(VENV)/.viewer  ## Run the service in the foreground
	NEUROFV_LOG_FORMAT=console $(BIN)/neurofv-server

proto: $(VENV)/.dev  ## Generate the stubs from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=client --pyi_out=client --grpc_python_out=client proto/neurofv/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc -Iservice/oip=proto/inference --python_out=. --pyi_out=. --grpc_python_out=. service/oip/open_inference.proto

docs: $(VENV)/.dev  ## Write docs/reference from the code
	$(BIN)/python docs/make_reference.py

viewer: $(VENV)/.run  ## Fetch NiiVue, which draws volumes at /ui and in reports, from npm into the user's cache
	$(BIN)/python -m neurofv.viewer

image: $(VENV)/.run  ## Build the container image and let it answer a request
	PYTHON=$(BIN)/python deploy/image/build.sh
	PYTHON=$(BIN)/python deploy/image/smoke.sh

images: $(VENV)/.dev  ## The same with the images of training and TorchServe
	for target in service training torchserve; do \
		TARGET=$$target PYTHON=$(BIN)/python deploy/image/build.sh || exit; \
		TARGET=$$target PYTHON=$(BIN)/python deploy/image/smoke.sh || exit; \
	done

sbom: $(VENV)/.dev  ## Write what the service runs on as CycloneDX to dist/sbom.cdx.json
	$(BIN)/python deploy/sbom.py dist/sbom.cdx.json

bench-service: $(VENV)/.dev  ## Measure the service's latencies; writes benchmarks/results/service.json
	$(BIN)/python -m benchmarks.service

bench-speed: $(VENV)/.dev  ## Measure steps, runs and streams beside peers' (25 minutes); writes benchmarks/results/speed.json
	$(BIN)/python -m benchmarks.speed

bench-imports: $(VENV)/.dev  ## Import whole networks from elsewhere and visualize each (15 minutes); writes benchmarks/results/imports.json
	$(BIN)/python -m benchmarks.imports

soak: $(VENV)/.dev  ## Prove reliability at full size (an hour; PARTS=..., LONG=1); writes benchmarks/results/reliability.json
	$(BIN)/python -m benchmarks.reliability $(PARTS) $(if $(LONG),--long)

bench-reliability: soak  ## The same

bench-peers: $(VENV)/.dev  ## Compare with the peers' methods (about an hour); writes benchmarks/results/peers.json
	$(BIN)/python -m benchmarks.peers

bench-shortcuts: $(VENV)/.dev  ## Plant shortcuts in cohorts, and see whether the audit notices (half an hour); writes docs/shortcuts.md
	$(BIN)/python -m benchmarks.shortcuts

COHORT ?= ../shared/cohort
TRAIN := $(BIN)/python -m training
CONTROLS := benchmarks/study/.controls
AFFINE := --description affinebrain
made = $(CONTROLS)/$(1)/1/bundle.json
controls := $(foreach name,lesion-shapes-shuffled lesion-shapes-untrained growth-shuffled growth-untrained \
	sex-rigid-shuffled sex-affine-shuffled,$(call made,$(name)))
$(call made,lesion-shapes-%): | $(VENV)/.dev
	$(TRAIN) lesions --$* --draws 2 --cohort $(COHORT) --out $(CONTROLS)
$(call made,growth-%): | $(VENV)/.dev
	$(TRAIN) growth --$* --cohort $(COHORT) --out $(CONTROLS)
$(call made,sex-rigid-%): | $(VENV)/.dev
	$(TRAIN) sex --$* --cohort $(COHORT) --out $(CONTROLS)
$(call made,sex-affine-%): | $(VENV)/.dev
	$(TRAIN) sex --$* $(AFFINE) --cohort $(COHORT) --out $(CONTROLS)

study: $(VENV)/.dev  ## Measure which pictures tell the truth (two hours); writes docs/study.md
	$(MAKE) -j2 $(controls)
	$(BIN)/python -m benchmarks.study --cohort $(COHORT)

study-quick: $(VENV)/.dev  ## The same on a few pictures; writes benchmarks/results/study-quick.json
	$(BIN)/python -m benchmarks.study --quick

train: $(VENV)/.dev  ## Train the models of the zoo on COHORT (a BIDS derivative) into trained/
	$(TRAIN) lesions --cohort $(COHORT) --out trained
	$(TRAIN) lesions --robust --cohort $(COHORT) --out trained
	$(TRAIN) growth --cohort $(COHORT) --out trained
	$(TRAIN) sex --cohort $(COHORT) --out trained
	$(TRAIN) sex $(AFFINE) --cohort $(COHORT) --out trained

clean:  ## Remove what was made
	rm -rf $(VENV) $(CONTROLS) benchmarks/study/.pictures demo-output audit-demo-output trained build dist *.egg-info client/build client/*.egg-info
