# Everything runs in a .venv that this file makes. `make demo` and `make test` need nothing before them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# A machine without NVIDIA GPUs shows the demo on simulated ones, marked `sim` wherever they appear.
# NCCL wants a GPU for each rank, so with a single one the demo trains on CPUs.
GPUS := $(words $(wildcard /dev/nvidia[0-9]))
DEMO_CLUSTER := $(if $(filter 0,$(GPUS)),--simulate-gpus 2)
DEMO_JOB := $(if $(filter 1,$(GPUS)),,--gpus 2)
PYTEST := $(BIN)/python -m pytest

.PHONY: demo demo-loop test docs check lint types contracts playbooks wheelhouse format bench test-cluster test-chaos survival test-hosts test-packages test-programs test-containers test-api test-parquet test-gpu pictures lock schema clean help

help: ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Quarterdeck and what its examples need (some minutes the first time)"
	$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Quarterdeck and what its tests need (some minutes the first time)"
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## train on two ranks on a one-machine cluster, gate, approve and serve the model, end to end
	$(BIN)/qd up $(DEMO_CLUSTER)
	$(BIN)/qd submit examples/digits/job.yaml --python $(abspath $(BIN)/python) $(DEMO_JOB) --watch
	@$(BIN)/qd job last --json | $(BIN)/python examples/digits/check.py
	@QD=$(BIN)/qd PYTHON=$(abspath $(BIN)/python) QD_SUBMIT='$(DEMO_JOB)' sh examples/digits/release.sh
	@QD=$(BIN)/qd PYTHON=$(abspath $(BIN)/python) sh examples/digits/deploy.sh
	@echo
	@echo "The console:     $(BIN)/qd"
	@echo "Stop everything, the service too: $(BIN)/qd down --force"

demo-loop: $(VENV)/.demo ## new data, checked, trained, gated, approved, canaried, kept or rolled back: the whole loop
	$(BIN)/qd up $(DEMO_CLUSTER)
	@VIRTUAL_ENV=$(abspath $(VENV)) PATH="$(abspath $(BIN)):$$PATH" sh examples/digits/loop/loop.sh
	@echo
	@echo "Stop everything, the service too: $(BIN)/qd down --force"

# Two at a time: more than half of what a test takes is waiting for processes that it started.
WORKERS ?= 2
SLOW := chaos cluster hosts packages programs containers bench fuzz
test: $(VENV)/.dev ## every test that fits in minutes (WORKERS=8: so many files at a time)
	$(PYTEST) tests -n $(WORKERS) --dist loadfile $(SLOW:%=--ignore tests/%)

check: lint types contracts playbooks ## ruff, mypy --strict (tests too), import contracts, ansible-lint

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

playbooks: $(VENV)/.playbooks

# Takes some ten seconds, so only after a change.
$(VENV)/.playbooks: $(shell find ansible -type f) | $(VENV)/.dev
	cd ansible && PATH="$(abspath $(BIN)):$$PATH" ANSIBLE_HOME=$(abspath $(VENV))/ansible \
	  $(abspath $(BIN))/ansible-lint --offline --profile production -q
	@touch $@

# SOURCE_DATE_EPOCH and the options of tar: the same content has the same checksum, which names a release.
DIST := dist
EXTRAS := cluster,serve
wheelhouse: export SOURCE_DATE_EPOCH = 1700000000
wheelhouse: | $(BIN)/python ## what the playbooks install, into dist/ (ONLINE=1: without the packages of others)
	rm -rf $(DIST)/wheelhouse build
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(DIST)/wheelhouse .
	$(if $(ONLINE),,$(BIN)/pip download --quiet --constraint constraints.txt --dest $(DIST)/wheelhouse "quarterdeck[$(EXTRAS)] @ file://$$(echo $(abspath $(DIST))/wheelhouse/quarterdeck-*.whl)")
	cp constraints.txt $(DIST)/wheelhouse/
	tar --create --sort=name --mtime=@$$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner \
	  --file $(DIST)/quarterdeck.tar --directory $(DIST)/wheelhouse .

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-chaos: $(VENV)/.dev ## kill every part for real, on one host (SHORT=1: the quick ones)
	$(PYTEST) tests/chaos $(if $(SHORT),-m "not slow")

survival: $(VENV)/.dev ## do to a cluster what docs/survival.md lists, and write down what happens (QUICK=1)
	$(BIN)/python -m tests.chaos.table $(if $(QUICK),--quick)

test-cluster: $(VENV)/.dev ## several hosts in network namespaces; needs root (SHORT=1: the quick ones)
	$(PYTEST) tests/cluster $(if $(SHORT),-m "not slow")

test-api: $(VENV)/.dev ## a fuzzer (schemathesis) against the API's real socket
	$(PYTEST) tests/fuzz

test-packages: $(VENV)/.dev ## the wheel, installed as a client and with all of it
	$(PYTEST) tests/packages

# Their packages are not ours: each set of frameworks has an environment beside .venv.
.programs/%/.made: tests/programs/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

test-programs: $(VENV)/.dev $(if $(SHORT),,.programs/torch/.made .programs/jax/.made) ## Lightning, JAX, Ray Train... as they are (SHORT=1: nothing to download)
	$(PYTEST) tests/programs $(if $(SHORT),-m "not slow")

test-containers: $(VENV)/.dev ## ranks in real containers; needs podman, crun and root
	$(PYTEST) tests/containers

test-hosts: $(VENV)/.dev ## real Debian hosts provisioned from bare; needs root (SHORT=1: the quick ones)
	$(PYTEST) tests/hosts $(if $(SHORT),-m "not slow")

# Beside the environment, not in it: Ray loads pyarrow into each of its processes when it is there,
# 55 MB each, which would be in all figures.
$(VENV)/parquet: constraints.txt | $(VENV)/.dev
	$(PIP_INSTALL) --no-deps --upgrade --target $@ pyarrow
	@touch $@

test-parquet: $(VENV)/parquet ## the export that needs pyarrow
	PYTHONPATH=$(VENV)/parquet $(PYTEST) tests/console/test_cli_sweeps.py tests/agents/node/worker/test_batch_parquet.py -k parquet

test-gpu: $(VENV)/.dev ## what needs an NVIDIA GPU and a torch with CUDA; skipped without
	$(PYTEST) tests/gpu

bench: $(VENV)/.dev ## side-by-side figures into docs/benchmarks.md (SHORT=1: few rounds, nothing written)
	$(BIN)/python -m tests.bench $(if $(SHORT),--short)

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## the documentation as a site, into docs/_build/html; fails on a broken link
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html

pictures: $(VENV)/.dev ## take the console's pictures anew, on a live cluster (some five minutes)
	$(BIN)/python docs/pictures/make.py

schema: $(VENV)/.dev ## write docs/job.schema.json and docs/sweep.schema.json anew
	$(BIN)/python -m jobs.sweeps.schema > docs/job.schema.json
	$(BIN)/python -m jobs.sweeps.schema sweep > docs/sweep.schema.json

lock: $(VENV)/.dev $(VENV)/.docs $(VENV)/parquet ## take the installed versions as the pinned ones
	(echo "# Exact versions that CI runs with. Made by \`make lock\`."; \
	 ($(BIN)/pip freeze --exclude-editable; $(BIN)/pip freeze --path $(VENV)/parquet) \
	 | sed 's/+cpu//' | LC_ALL=C sort -f -u -t= -k1,1) > constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
