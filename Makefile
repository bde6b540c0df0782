# The series in two commands: `make run-all` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

PROFILE ?= demo
OUT := build/$(PROFILE)
DRIVE := $(if $(wildcard /content/drive/MyDrive/.),/content/drive/MyDrive/$(notdir $(CURDIR))/)
RUNS := $(if $(filter /%,$(RUNS_DIR)),$(RUNS_DIR),$(DRIVE)$(or $(RUNS_DIR),runs))/$(PROFILE)
SOURCES := $(sort $(wildcard notebooks/*.ipynb))
EXECUTED := $(SOURCES:notebooks/%=$(OUT)/%)
HELPERS := $(wildcard helpers/*.py) data/sample.txt

# Without PYTHON=, everything is installed into .venv. With it (Colab, Kaggle, conda), only what is missing, never torch.
ifeq ($(CONDA_DEFAULT_ENV),gpt2-by-heart)
PYTHON ?= python
endif
ifdef PYTHON
RUN := $(PYTHON)
env: ; @$(PYTHON) -m helpers.install
else
RUN := .venv/bin/python
env: .venv/.ready
endif

.PHONY: help env data run-all test lint refresh bench demo space clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=demo (default), laptop or t4; PYTHON=python to use your own interpreter"

env:  ## install what the series needs (the other targets do this by themselves)

.venv/.ready: requirements.txt
	python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: the series needs Python 3.11 or newer")'
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

data: | env  ## fetch tiny Shakespeare, or check the copy that is there
	@$(RUN) -m helpers data

run-all: $(EXECUTED)  ## execute the notebooks in order; finished ones are not run again
	@echo "executed notebooks and HTML: $(OUT)/   checkpoints, metrics, figures: $(RUNS)/"

# Results that were deleted or moved away are made again: the first notebook depends on their folder's first file.
$(firstword $(EXECUTED)): $(RUNS)/.started
$(RUNS)/.started:
	@mkdir -p "$(@D)" && touch "$@"

# An executed notebook depends on its source, the helpers, and the one before it (05 reads 04's checkpoint).
$(OUT)/%.ipynb: notebooks/%.ipynb $(HELPERS) | env
	@$(RUN) -m helpers.execute run $< $@ --profile $(PROFILE)

previous :=
define after_previous
$(1): $(previous)
previous := $(1)
endef
$(foreach notebook,$(EXECUTED),$(eval $(call after_previous,$(notebook))))

lint: | env  ## ruff over code and notebooks
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test: lint | env  ## unit tests, notebook structure, and every committed output compared by nbval
	rm -rf build/test-runs
	RUNS_DIR=build/test-runs $(RUN) -m pytest tests notebooks --nbval --nbval-current-env --nbval-cell-timeout 600

refresh: | env  ## re-make the committed outputs (demo profile) and README's figure, and nothing else does
	$(if $(filter-out demo,$(PROFILE)),$(error refresh re-makes the outputs of the demo profile: leave PROFILE=$(PROFILE) out))
	@$(RUN) -m helpers.execute refresh $(SOURCES)
	@cp "$(RUNS)/figures/04_full_size.png" data/runs/full-size.png

bench: | env  ## the benchmarks of tests/benchmarks, each against a named peer in the same run
	$(RUN) -m tests.benchmarks

demo: | env  ## the page: prompts, and which words of an answer are the book's (after run-all)
	@$(RUN) -m helpers demo --profile $(PROFILE)

space: | env  ## a folder that serves the model by itself, in 8 bits: build/PROFILE/space (after run-all)
	@$(RUN) -m helpers space --profile $(PROFILE) --out $(OUT)/space

clean:  ## delete build/; runs/ (checkpoints) and .venv stay
	rm -rf build
