# Two stages: `make cache-teacher`, then `make train-student`. Alone they run on scikit-learn's handwritten digits;
# with SHARDS set they run on your data (CACHE= trains without a store). Every target sets up what it needs; every one
# goes on where it was.
#
#: SHARDS, VAL_SHARDS    WebDataset tars to train on, and held-out ones  [default: digits]
#: CACHE                 the store of the teacher's labels; empty: train without
#: TEACHER               timm's name of the teacher, or its folder
#: MODEL, MODEL_KWARGS   timm's name of the student, and arguments such as depth=6
#: RECIPE, SET           augmentation, and changes of its fields such as hflip=0
#: IMAGE_SIZE, VIEWS     height and width of a view; views of each image
#: DISTILL               hard, soft or none
#: OUT, EPOCHS           the student's folder; epochs to train
#: BATCH_SIZE, LR        images a step; learning rate at 512 of them
#: TEACHER_BATCH_SIZE    views that the teacher sees at once
#: DEVICE, WORKERS       cpu, cuda or auto; processes that render views
#: NPROC                 how many processes either stage has on this machine, each with a GPU of its own
#: CACHE_FLAGS           more options of cache-teacher
#: STUDENT_FLAGS         more options of train-student
#: COMPARE, SEEDS        of `make compare`: its folder, its seeds
#: LOGITS                of `make compare`: bits in which every class's logit is kept
#: PLAIN_MODEL           of `make compare`: the student without a distillation token
#: BENCH_SHARDS          shards of real photos for `make bench`
#: DEIT, PHOTOS          of `make parity`: a checkout of the published code, a folder with shards of photos
#: PYTHON                the Python that .venv is made with
#: PYTHONS               of `make portability`: interpreters, named python3.11 to python3.14

PYTHON ?= python3
DEVICE ?= auto
MODEL ?= deit_tiny_distilled_patch16_224

BIN := .venv/bin
RUN := $(BIN)/distillcache
RANKS := $(if $(NPROC),$(BIN)/torchrun --nproc-per-node $(NPROC) --no-python )$(RUN)

ifdef SHARDS
CACHE ?= cache.zarr
OUT ?= runs/$(MODEL)
TEACHER ?= regnety_160.deit_in1k
BATCH_SIZE ?= 1024
TEACHER_BATCH_SIZE ?= 256
LR ?= 5e-4
else
# The embedded default: 1,437 digits of 32 x 32 to train on, 360 held out, a RegNetY and a small DeiT from scratch.
DIGITS := runs/digits
SHARDS := $(DIGITS)/shards/train-*.tar
VAL_SHARDS := $(DIGITS)/shards/val-*.tar
CACHE ?= $(DIGITS)/teacher.zarr
OUT ?= $(DIGITS)/student
TEACHER ?= $(DIGITS)/teacher
IMAGE_SIZE ?= 32
VIEWS ?= 60
EPOCHS ?= $(VIEWS)
BATCH_SIZE ?= 32
TEACHER_BATCH_SIZE ?= 256
LR ?= 1.6e-2
# A mirrored digit is another sign, and 60 short epochs can't bear as much augmentation as ImageNet's 300.
SET ?= hflip=0 crop_scale=0.7,1 randaug_ops=0 mix_prob=0.5
MODEL_KWARGS ?= img_size=32 patch_size=8 embed_dim=96 depth=6 num_heads=3
STUDENT_FLAGS ?= --drop-path 0 --crop-pct 1
NEEDS_TEACHER := $(DIGITS)/teacher/config.json
NEEDS_CACHE := cache-teacher
endif

# Methods side by side: SEEDS runs of each, from one store that holds the teacher's logits in LOGITS bits each.
COMPARE ?= $(or $(DIGITS),runs)/compare
SEEDS ?= 0 1 2
LOGITS ?= 8
PLAIN_MODEL ?= deit_tiny_patch16_224

.DEFAULT_GOAL := setup
.PHONY: setup help cache-teacher train-student compare digits-shards test test-slurm test-ends lint bench parity portability docs clean

help:  ## Say what can be made, and with which variables
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 24
	@printf '\nVariables (make TARGET NAME=VALUE):\n'
	@sed -n 's/^#: //p' Makefile

setup: .venv/.installed  ## Make .venv and install everything into it (the default)

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

cache-teacher: setup $(NEEDS_TEACHER)  ## Stage 1: keep what the teacher says of every view
	$(RANKS) cache-teacher --shards '$(SHARDS)' $(if $(VAL_SHARDS),--val-shards '$(VAL_SHARDS)') --cache '$(CACHE)' \
	  --teacher '$(TEACHER)' $(RECIPE:%=--recipe %) $(SET:%=--set %) $(IMAGE_SIZE:%=--image-size %) $(VIEWS:%=--views %) \
	  --batch-size $(TEACHER_BATCH_SIZE) $(WORKERS:%=--workers %) --device $(DEVICE) $(CACHE_FLAGS)

train-student: setup $(NEEDS_CACHE)  ## Stage 2: train a student from shards and store
	$(RANKS) train-student --shards '$(SHARDS)' $(if $(VAL_SHARDS),--val-shards '$(VAL_SHARDS)') \
	  $(if $(CACHE),--cache '$(CACHE)',$(RECIPE:%=--recipe %) $(SET:%=--set %) $(IMAGE_SIZE:%=--image-size %)) \
	  --out '$(OUT)' --model $(MODEL) $(MODEL_KWARGS:%=--model-kwargs %) $(DISTILL:%=--distill %) $(EPOCHS:%=--epochs %) \
	  --batch-size $(BATCH_SIZE) --lr $(LR) $(WORKERS:%=--workers %) --device $(DEVICE) $(STUDENT_FLAGS)

compare: setup  ## Train each method with several seeds, from one store
	$(MAKE) cache-teacher CACHE='$(COMPARE)/teacher.zarr' CACHE_FLAGS='$(CACHE_FLAGS) --logits $(LOGITS)'
	@set -e; train() { $(MAKE) --no-print-directory train-student NEEDS_CACHE= CACHE='$(COMPARE)/teacher.zarr' \
	    OUT="$(COMPARE)/$$1-$$3" DISTILL="$$1" MODEL="$$2" STUDENT_FLAGS="$(STUDENT_FLAGS) --seed $$3"; }; \
	for seed in $(SEEDS); do \
	  train none $(PLAIN_MODEL) $$seed; train soft $(MODEL) $$seed; train hard $(MODEL) $$seed; \
	done
	$(BIN)/python bench/compare.py '$(COMPARE)'

digits-shards: setup  ## Pack scikit-learn's digits into shards
	$(RUN) make-shards digits $(DIGITS)/shards

$(DIGITS)/teacher/config.json: | digits-shards
	$(RUN) train-teacher --shards '$(SHARDS)' --val-shards '$(VAL_SHARDS)' --out $(@D) --model regnety_002 \
	  --recipe crop --set hflip=0 --set crop_scale=0.6,1 --image-size $(IMAGE_SIZE) --epochs 15 --batch-size 32 \
	  --lr 3.2e-2 $(WORKERS:%=--workers %) --device $(DEVICE)

test: setup  ## Run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slurm: setup  ## Run the jobs of examples/slurm on a real Slurm: Debian's slurm-wlm is needed, and no root
	$(BIN)/python -m pytest tests/test_slurm.py

test-ends: setup  ## Run every fault of running processes, with all workers and ranks (20 minutes)
	ENDS=1 $(BIN)/python -m pytest tests/test_ends.py

lint: setup  ## Run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .typing && ln -sfn .. .typing/distillcache
	MYPYPATH=.typing $(BIN)/mypy --no-namespace-packages -p distillcache

# BENCH_SHARDS names shards of real photos; without it, ImageNet's where they are at hand, or scikit-learn's two.
bench: setup  ## Measure, beside other programs
	$(BIN)/python bench/run.py

parity: $(if $(DEIT),setup .parity/.installed)  ## Compare with the published DeiT: DEIT=FOLDER
	$(if $(DEIT),,$(error DEIT: expected a checkout of github.com/facebookresearch/deit; run make parity DEIT=FOLDER))
	$(BIN)/python bench/parity '$(DEIT)' $(PHOTOS:%=--photos '%') --page docs/parity.md

# What the published code runs with, apart from .venv, which has newer ones.
.parity/.installed: bench/parity/requirements.txt
	rm -rf .parity
	$(BIN)/python -m pip install --quiet --no-deps --target .parity --requirement $<
	@touch $@

portability: setup  ## See where views are the same bytes: lowest and newest libraries, each of PYTHONS, other CPUs
	$(BIN)/python bench/portability.py $(PYTHONS)

docs: setup  ## Build the documentation as a site with a search: site/index.html
	$(BIN)/python docs/site.py site

clean:  ## Remove what was made of the digits
	rm -rf runs/digits
