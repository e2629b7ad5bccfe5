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

.PHONY: demo test check lint types contracts format bench test-cluster test-chaos test-parquet test-gpu pictures lock schema clean help

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

demo: $(VENV)/.demo ## train on two ranks on a one-machine cluster, end to end
	$(BIN)/qd up $(DEMO_CLUSTER)
	$(BIN)/qd submit examples/digits/job.yaml --python $(abspath $(BIN)/python) $(DEMO_JOB) --watch
	@$(BIN)/qd job last --json | $(BIN)/python examples/digits/check.py
	@echo
	@echo "The console:     $(BIN)/qd"
	@echo "Stop everything: $(BIN)/qd down"

# Two at a time: more than half of what a test takes is waiting for processes that it started.
WORKERS ?= 2
test: $(VENV)/.dev ## every test that fits in minutes (WORKERS=8: so many files at a time)
	$(PYTEST) tests -n $(WORKERS) --dist loadfile --ignore tests/chaos --ignore tests/cluster --ignore tests/bench

check: lint types contracts ## ruff, mypy --strict (tests too), import contracts

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-chaos: $(VENV)/.dev ## kill every part for real, on one host (SHORT=1: the quick ones)
	$(PYTEST) tests/chaos $(if $(SHORT),-m "not slow")

test-cluster: $(VENV)/.dev ## several hosts in network namespaces; needs root (SHORT=1: the quick ones)
	$(PYTEST) tests/cluster $(if $(SHORT),-m "not slow")

# Beside the environment, not in it: Ray loads pyarrow into each of its processes when it is there,
# 55 MB each, which would be in all figures.
$(VENV)/parquet: constraints.txt | $(VENV)/.dev
	$(PIP_INSTALL) --no-deps --upgrade --target $@ pyarrow
	@touch $@

test-parquet: $(VENV)/parquet ## the export that needs pyarrow
	PYTHONPATH=$(VENV)/parquet $(PYTEST) tests/console/test_cli_sweeps.py -k parquet

test-gpu: $(VENV)/.dev ## what needs an NVIDIA GPU and a torch with CUDA; skipped without
	$(PYTEST) tests/gpu

bench: $(VENV)/.dev ## side-by-side figures into docs/benchmarks.md (SHORT=1: few rounds, nothing written)
	$(BIN)/python -m tests.bench $(if $(SHORT),--short)

pictures: $(VENV)/.dev ## take the console's pictures anew, on a live cluster (some five minutes)
	$(BIN)/python docs/pictures/make.py

schema: $(VENV)/.dev ## write docs/job.schema.json anew
	$(BIN)/python -m jobs.schema > docs/job.schema.json

lock: $(VENV)/.dev $(VENV)/parquet ## take the installed versions as the pinned ones
	(echo "# Exact versions that CI runs with. Made by \`make lock\`."; \
	 ($(BIN)/pip freeze --exclude-editable; $(BIN)/pip freeze --path $(VENV)/parquet) \
	 | sed 's/+cpu//' | LC_ALL=C sort -f -u -t= -k1,1) > constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
