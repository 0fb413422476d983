# One target per thing a reader wants. `make help` lists them; every target makes its own environment first.

PYTHON ?= python3
SCALE ?= laptop
SEEDS ?= 0
EXHIBIT ?= rskd/table06
GPU ?=
MINUTES ?= 12
DRY ?=
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
        bench rehearse gpu-first clean \
        figure-frontier replicate-figure-frontier

# The kinds of exhibit; each has three rules, which `define rules` writes.
EXHIBITS = $(foreach paper,rskd tad sekd salt,$(paper)/table $(paper)/figure) ours/figure
# rskd/table -> table, tad/figure -> tad-figure: RS-KD's need no name
target = $(subst /,-,$(patsubst rskd/%,%,$(1)))
# rskd/table and 6 -> rskd/table06, rskd/figure and 2a -> rskd/figure02a: the file in paper_tables/
exhibit = $(1)$(shell echo '$(2)' | sed -E 's/^([0-9])([a-z]?)$$/0\1\2/')

help: ## list every target with one line
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  %-24s %s\n", $$1, $$2}' Makefile
	@printf '  %-24s %s\n' $(foreach each,$(EXHIBITS),'replicate-$(call target,$(each))-N' 'really run $(each)N on this machine, then show published, logged, yours')
	@printf '  %-24s %s\n' $(foreach each,$(EXHIBITS),'$(call target,$(each))-N' 'show $(each)N from the logged records, running nothing')
	@printf '  %-24s %s\n' $(foreach each,$(EXHIBITS),'plan-$(call target,$(each))-N' 'what $(each)N will take: runs, FLOPs, hours, disk')
	@echo
	@echo "Variables: SCALE=$(SCALE) (smoke, laptop, h100-sweep, h100, paper)  SEEDS=\"$(SEEDS)\"  CORES=$(CORES)"
	@echo "           PROFILE=$(PROFILE) (local, slurm, kubernetes, or a folder of your own) where replicate-... runs"
	@echo "           AGAIN=1 has replicate-... make anew what was made of a text or model that was replaced, the old kept aside"
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

# $(1) one of EXHIBITS: replicate-table-6 runs and shows rskd/table06, table-6 shows it, plan-table-6 says what it takes
define rules
replicate-$(call target,$(1))-%: environment
	$$(PY) -m workflow $$(call exhibit,$(1),$$*) --scale $$(SCALE) --seeds $$(SEEDS) --profile $$(PROFILE)$$(if $$(CORES), --cores $$(CORES))$$(if $$(filter 1,$$(AGAIN)), --again)
	$$(PY) -m analysis $(notdir $(1)) $$(call exhibit,$(1),$$*) --scale $$(SCALE)

$(call target,$(1))-%: environment
	$$(PY) -m analysis $(notdir $(1)) $$(call exhibit,$(1),$$*) --scale $$(SCALE)

plan-$(call target,$(1))-%: environment
	@$$(PY) -m replication plan $$(call exhibit,$(1),$$*) --scale $$(SCALE) --seeds $$(SEEDS) $$(if $$(GPU),--gpu $$(GPU))
endef
$(foreach each,$(EXHIBITS),$(eval $(call rules,$(each))))

# what a byte buys, in one position's target, in a batch's gradient, in the student
FRONTIER = 9 10 11
figure-frontier: $(FRONTIER:%=ours-figure-%) ## bytes a token against error, gradient and student, for every draw
replicate-figure-frontier: $(FRONTIER:%=replicate-ours-figure-%) ## really run these figures on this machine

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

rehearse: environment ## a GPU scale's runs at their true size on this CPU, a few steps each: SCALE=h100; 20 GB, 45 minutes
	$(PY) -m workflow.rehearse --scale $(SCALE)

gpu-first: environment ## what to run first where a GPU is at hand for MINUTES=12, the most worth first; DRY=1 only says it
	$(PY) -m workflow.gpu_first --minutes $(MINUTES)$(if $(filter 1,$(DRY)), --dry)

clean: ## remove build/ and the tools' caches; .venv, artifacts/ and results/ stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
