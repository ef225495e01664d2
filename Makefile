# Two stages: `make cache-teacher`, then `make train-student`. Alone they run on scikit-learn's handwritten digits;
# with SHARDS set they run on your data (CACHE= trains without a store). Every target sets up what it needs; every one
# goes on where it was.

PYTHON ?= python3
DEVICE ?= auto
MODEL ?= deit_tiny_distilled_patch16_224

BIN := .venv/bin
RUN := $(BIN)/distillcache

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

# Methods side by side: SEEDS runs of each, from one store that holds the teacher's TOPK largest logits.
COMPARE ?= $(or $(DIGITS),runs)/compare
SEEDS ?= 0 1 2
TOPK ?= 10
PLAIN_MODEL ?= deit_tiny_patch16_224

.PHONY: setup cache-teacher train-student compare digits-shards test lint bench docs clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

cache-teacher: setup $(NEEDS_TEACHER)
	$(RUN) cache-teacher --shards '$(SHARDS)' $(if $(VAL_SHARDS),--val-shards '$(VAL_SHARDS)') --cache '$(CACHE)' \
	  --teacher '$(TEACHER)' $(RECIPE:%=--recipe %) $(SET:%=--set %) $(IMAGE_SIZE:%=--image-size %) $(VIEWS:%=--views %) \
	  --batch-size $(TEACHER_BATCH_SIZE) $(WORKERS:%=--workers %) --device $(DEVICE) $(CACHE_FLAGS)

train-student: setup $(NEEDS_CACHE)
	$(RUN) train-student --shards '$(SHARDS)' $(if $(VAL_SHARDS),--val-shards '$(VAL_SHARDS)') \
	  $(if $(CACHE),--cache '$(CACHE)',$(RECIPE:%=--recipe %) $(SET:%=--set %) $(IMAGE_SIZE:%=--image-size %)) \
	  --out '$(OUT)' --model $(MODEL) $(MODEL_KWARGS:%=--model-kwargs %) $(DISTILL:%=--distill %) $(EPOCHS:%=--epochs %) \
	  --batch-size $(BATCH_SIZE) --lr $(LR) $(WORKERS:%=--workers %) --device $(DEVICE) $(STUDENT_FLAGS)

compare: setup
	$(MAKE) cache-teacher CACHE='$(COMPARE)/teacher.zarr' CACHE_FLAGS='$(CACHE_FLAGS) --topk $(TOPK)'
	@set -e; train() { $(MAKE) --no-print-directory train-student NEEDS_CACHE= CACHE='$(COMPARE)/teacher.zarr' \
	    OUT="$(COMPARE)/$$1-$$3" DISTILL="$$1" MODEL="$$2" STUDENT_FLAGS="$(STUDENT_FLAGS) --seed $$3"; }; \
	for seed in $(SEEDS); do \
	  train none $(PLAIN_MODEL) $$seed; train soft $(MODEL) $$seed; train hard $(MODEL) $$seed; \
	done
	$(BIN)/python bench/compare.py '$(COMPARE)'

digits-shards: setup
	$(RUN) make-shards digits $(DIGITS)/shards

$(DIGITS)/teacher/config.json: | digits-shards
	$(RUN) train-teacher --shards '$(SHARDS)' --val-shards '$(VAL_SHARDS)' --out $(@D) --model regnety_002 \
	  --recipe crop --set hflip=0 --set crop_scale=0.6,1 --image-size $(IMAGE_SIZE) --epochs 15 --batch-size 32 \
	  --lr 3.2e-2 $(WORKERS:%=--workers %) --device $(DEVICE)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .typing && ln -sfn .. .typing/distillcache
	MYPYPATH=.typing $(BIN)/mypy --no-namespace-packages -p distillcache

# BENCH_SHARDS names shards of real photos; without it, ImageNet's where they are at hand, or scikit-learn's two.
bench: setup
	$(BIN)/python bench/run.py

# The docs as a site with a search: site/index.html.
docs: setup
	$(BIN)/python docs/site.py site

clean:
	rm -rf runs/digits
