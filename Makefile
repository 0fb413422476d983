# One target per thing a reader wants. `make help` lists them; every target makes its own environment first.

PYTHON ?= python3
SCALE ?= laptop
SEEDS ?= 0
EXHIBIT ?= rskd/table06
GPU ?=
RUN ?=
SAMPLE ?=
PROFILE ?= local
# a cluster has processors of its own
CORES ?= $(if $(filter local,$(PROFILE)),$(shell getconf _NPROCESSORS_ONLN))
TEST_WORKERS ?= 2
TORCH_INDEX ?=
PY = .venv/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help environment lock test lint format coverage audit errata claims report rehearsals notebooks record replay \
        bench clean \
        figure-frontier replicate-figure-frontier

# 6 -> 06, 2a -> 02a, 12 -> 12: the number as the files of paper_tables/ write it.
two_digits = $(shell echo '$(1)' | sed -E 's/^([0-9])([a-z]?)$$/0\1\2/')

help: ## list every target with one line
	@awk -F ':.*## ' '/^[a-z][a-z%-]*:.*## /{gsub("%", "N", $$1); printf "  %-24s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Variables: SCALE=$(SCALE) (smoke, laptop, h100-sweep, h100, paper)  SEEDS=\"$(SEEDS)\"  CORES=$(CORES)"
	@echo "           PROFILE=$(PROFILE) (local, slurm, kubernetes, or a folder of your own) where replicate-... runs"
	@echo "           TASK_DATA=<folder> task data of the downstream columns; hub: from the Hugging Face hub"
	@echo "           JUDGE_URL=<address> JUDGE_MODEL=<name> a judge for RS-KD's Table 9: python -m replication judge-cost -h"
	@echo "           PYTHON=$(PYTHON) builds .venv;  PY=python uses the Python you stand in, and builds nothing"
	@echo "           GPU=h100 (h200, a100) makes plans speak of that GPU's hours"
	@echo "           TORCH_INDEX=<url> a package index with another build of PyTorch, the CPU-only one for example"

environment: ## create or update .venv from requirements.lock (at once when nothing is missing)
ifeq ($(origin PY),file)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 or newer is needed, '$(PYTHON)' is older or missing ($$($(PYTHON) --version 2>&1 | tail -1)). Name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@TORCH_INDEX='$(TORCH_INDEX)' $(PYTHON) tools/setup_environment.py
endif

test: lint ## everything that must hold: lint, then the tests
	$(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile

lint: environment ## ruff (format and rules) and mypy
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: environment ## let ruff rewrite the files
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: environment ## rewrite requirements.lock from what .venv holds, after pyproject.toml has changed
	$(PY) -m tools.write_lock

# $(1) paper, $(2) table or figure, $(3) its number
define replicate
$(PY) -m workflow $(1)/$(2)$(call two_digits,$(3)) --scale $(SCALE) --seeds $(SEEDS) --profile $(PROFILE)$(if $(CORES), --cores $(CORES))
$(PY) -m analysis $(2) $(1)/$(2)$(call two_digits,$(3)) --scale $(SCALE)
endef

show = $(PY) -m analysis $(2) $(1)/$(2)$(call two_digits,$(3)) --scale $(SCALE)
plan = $(PY) -m replication plan $(1)/$(2)$(call two_digits,$(3)) --scale $(SCALE) --seeds $(SEEDS) $(if $(GPU),--gpu $(GPU))

# what a byte buys, in one position's target, in a batch's gradient, in the student
FRONTIER = 9 10 11
figure-frontier: $(FRONTIER:%=ours-figure-%) ## bytes a token against error, gradient and student, for every draw
replicate-figure-frontier: $(FRONTIER:%=replicate-ours-figure-%) ## really run these figures on this machine

replicate-table-%: environment ## really run RS-KD's Table N on this machine, then print published, logged, yours
	$(call replicate,rskd,table,$*)

replicate-figure-%: environment ## really run RS-KD's Figure N (2a, 3b, 5) on this machine, then draw it
	$(call replicate,rskd,figure,$*)

replicate-tad-table-%: environment ## the same for TAD's Table N
	$(call replicate,tad,table,$*)

replicate-tad-figure-%: environment ## the same for TAD's Figure N
	$(call replicate,tad,figure,$*)

replicate-sekd-table-%: environment ## the same for SE-KD's Table N
	$(call replicate,sekd,table,$*)

replicate-sekd-figure-%: environment ## the same for SE-KD's Figure N
	$(call replicate,sekd,figure,$*)

replicate-salt-table-%: environment ## the same for SALT's Table N
	$(call replicate,salt,table,$*)

replicate-salt-figure-%: environment ## the same for SALT's Figure N
	$(call replicate,salt,figure,$*)

replicate-ours-figure-%: environment ## the same for the suite's own Figure N
	$(call replicate,ours,figure,$*)

table-%: environment ## print RS-KD's Table N from the logged records, running nothing
	$(call show,rskd,table,$*)

figure-%: environment ## draw RS-KD's Figure N from the logged records, running nothing
	$(call show,rskd,figure,$*)

tad-table-%: environment ## the same for TAD's Table N
	$(call show,tad,table,$*)

tad-figure-%: environment ## the same for TAD's Figure N
	$(call show,tad,figure,$*)

sekd-table-%: environment ## the same for SE-KD's Table N
	$(call show,sekd,table,$*)

sekd-figure-%: environment ## the same for SE-KD's Figure N
	$(call show,sekd,figure,$*)

salt-table-%: environment ## the same for SALT's Table N
	$(call show,salt,table,$*)

salt-figure-%: environment ## the same for SALT's Figure N
	$(call show,salt,figure,$*)

ours-figure-%: environment ## the same for the suite's own Figure N
	$(call show,ours,figure,$*)

plan-table-%: environment ## what RS-KD's Table N will take: runs, FLOPs, hours, disk (SCALE=paper GPU=h100: GPU hours)
	@$(call plan,rskd,table,$*)

plan-figure-%: environment ## the same for RS-KD's Figure N
	@$(call plan,rskd,figure,$*)

plan-tad-table-%: environment ## the same for TAD's Table N
	@$(call plan,tad,table,$*)

plan-tad-figure-%: environment ## the same for TAD's Figure N
	@$(call plan,tad,figure,$*)

plan-sekd-table-%: environment ## the same for SE-KD's Table N
	@$(call plan,sekd,table,$*)

plan-sekd-figure-%: environment ## the same for SE-KD's Figure N
	@$(call plan,sekd,figure,$*)

plan-salt-table-%: environment ## the same for SALT's Table N
	@$(call plan,salt,table,$*)

plan-salt-figure-%: environment ## the same for SALT's Figure N
	@$(call plan,salt,figure,$*)

plan-ours-figure-%: environment ## the same for the suite's own Figure N
	@$(call plan,ours,figure,$*)

coverage: environment ## count what is on file, runnable, replicated and judged, and say what is still empty and why
	@$(PY) -m paper_tables coverage

audit: environment ## recompute everything the papers print that follows from what else they print
	@$(PY) -m paper_tables audit

errata: environment ## rewrite paper_tables/ERRATA.md from the audit
	$(PY) -m paper_tables errata

claims: environment ## every claim of the four papers with its verdict on their numbers and on ours
	@$(PY) -m analysis claims --scale $(SCALE)

report: environment ## everything as one static site, from the logged records: build/report/index.html
	$(PY) -m analysis report --scale $(SCALE)

rehearsals: environment ## add what tests/rehearsals.json lacks: what a component does, of the numerics it now has
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PY) -m tests.rehearsals

notebooks: environment ## execute the notebooks of analysis/notebooks/ and keep them with their outputs: build/notebooks/
	@$(PY) -m tools.run_notebooks

replay: environment ## make logged runs again and compare: EXHIBIT=rskd/table06, RUN=<id>, SAMPLE=5; results/ stays as it is
	$(PY) -m workflow.replay --scale $(SCALE) $(if $(RUN),--run $(RUN),$(if $(filter command line,$(origin EXHIBIT)),--exhibit $(EXHIBIT)))$(if $(SAMPLE), --sample $(SAMPLE))

record: environment ## promote this machine's records of EXHIBIT=rskd/table06 to logged ones, after checking them
	$(PY) -m workflow $(EXHIBIT) --scale $(SCALE) --seeds $(SEEDS) --record

bench: environment ## ours beside what a user would take instead, half an hour (QUICK=1; PARTS="loss draws cache training")
	$(PY) -m benchmarks $(PARTS)$(if $(filter 1,$(QUICK)), --quick)

clean: ## remove build/ and the tools' caches; .venv, artifacts/ and results/ stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
