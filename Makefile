# The series in two commands: `make run-all` and `make test`. `make help` lists the rest.
#
# How to read this file: `target: what it is made from` and, indented below it, the commands that make it. make runs them
# where the target is missing or older than what it is made from. `| env` behind those: must be there first, its age does
# not matter. `@` before a command: it is not printed. `$<` is the first thing that a target is made from, `$@` the target.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

PROFILE ?= demo
OUT := build/$(PROFILE)
SOURCES := $(sort $(wildcard notebooks/*.ipynb))
EXECUTED := $(SOURCES:notebooks/%=$(OUT)/%)
RECORDS := $(wildcard data/runs data/runs/*/ data/runs/*.csv data/runs/*/*)
LIMIT := $(if $(CELL_LIMIT),--cell-limit $(CELL_LIMIT))

# Where results go, as `runs_folder` in helpers/base/files.py says it: RUNS_DIR or runs; on Colab below Drive, if it is mounted.
DRIVE := $(if $(wildcard /content/drive/MyDrive/.),/content/drive/MyDrive/$(notdir $(CURDIR))/)
RUNS := $(if $(filter /%,$(RUNS_DIR)),$(RUNS_DIR),$(DRIVE)$(or $(RUNS_DIR),runs))/$(PROFILE)

# Without PYTHON=, everything is installed into .venv. With it (Colab, Kaggle, conda), only what is missing, never torch.
ifeq ($(CONDA_DEFAULT_ENV),gpt2-by-heart)
PYTHON ?= python
endif
ifdef PYTHON
RUN := $(PYTHON)
env: ; @$(PYTHON) -m helpers.tools.install
develop: ; @$(PYTHON) -m helpers.tools.install --dev
else
RUN := .venv/bin/python
env develop: .venv/.ready
endif

.PHONY: help env develop data run-all test test-cpus lint refresh workbook slides bench gpu-proof demo space address release-check clean

# Below, a line with `##@` names a group of targets, and what stands behind `##` describes one: for this list.
##@ Use

help:  ## this list
	@awk -F ':.*## ' '/^##@/{print (n++ ? "\n" : "") substr($$0, 5) ":"} \
		/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "PROFILE=demo (default), laptop or t4; PYTHON=python to use your own interpreter;"
	@echo "CELL_LIMIT=seconds that a notebook's cell may take before it counts as hanging"

run-all: $(EXECUTED)  ## execute the notebooks in order; finished ones are not run again
	@echo "executed notebooks and HTML: $(OUT)/   checkpoints, metrics, figures: $(RUNS)/"

# An executed notebook is made from its source, the bundled scene and what is recorded. First it is written down, in a
# file beside it that ends in .mk, which helpers it imports; these files are read here, so that it is made again when
# such a helper changes.
$(OUT)/%.ipynb: notebooks/%.ipynb data/sample.txt $(RECORDS) | env
	@$(RUN) -m helpers.tools.depends $< $@
	@$(RUN) -m helpers.tools.execute run $< $@ --profile $(PROFILE) $(LIMIT)

-include $(EXECUTED:.ipynb=.mk)

# One after the other: a notebook may read what those before it have left (05, 07 and 08 the checkpoint of 04).
$(OUT)/02_char_baseline.ipynb: $(OUT)/01_tokenization.ipynb
$(OUT)/03_gpt2_architecture.ipynb: $(OUT)/02_char_baseline.ipynb
$(OUT)/04_overfitting.ipynb: $(OUT)/03_gpt2_architecture.ipynb
$(OUT)/05_memorization.ipynb: $(OUT)/04_overfitting.ipynb
$(OUT)/06_recipes.ipynb: $(OUT)/05_memorization.ipynb
$(OUT)/07_generation.ipynb: $(OUT)/06_recipes.ipynb
$(OUT)/08_serving.ipynb: $(OUT)/07_generation.ipynb
$(OUT)/09_laws_of_memorization.ipynb: $(OUT)/08_serving.ipynb

# Results that were deleted or moved away are made again: the first notebook depends on their folder's first file.
$(OUT)/01_tokenization.ipynb: $(RUNS)/.started
$(RUNS)/.started:
	@mkdir -p "$(@D)" && touch "$@"

demo: | env  ## the page: prompts, and which words of an answer are the book's (after run-all)
	@$(RUN) -m helpers demo --profile $(PROFILE)

space: | env  ## a folder that serves the model by itself, in 8 bits: build/PROFILE/space (after run-all)
	@$(RUN) -m helpers space --profile $(PROFILE) --out $(OUT)/space

data: | env  ## fetch tiny Shakespeare, or check the copy that is there
	@$(RUN) -m helpers data

env:  ## install what running the series needs (the other targets do this by themselves)

clean:  ## delete build/; runs/ (checkpoints) and .venv stay
	rm -rf build

##@ Work on it

# Notebooks that `make run-all` has just executed in .venv are compared as they are; if one is not up to date, or shows
# something else than what is committed, nbval executes all.
test: lint | develop  ## unit tests, notebook structure, and every committed output compared by nbval
	rm -rf build/test-runs
	RUNS_DIR=build/test-runs OMP_NUM_THREADS=1 $(RUN) -m pytest -p tests.watching notebooks tests \
		-n 3 --dist loadfile --no-loadscope-reorder -p tests.executed --executed build/demo \
		--nbval --nbval-current-env --nbval-cell-timeout $(or $(CELL_LIMIT),600)

lint: | develop  ## ruff over code and notebooks
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

refresh: | develop  ## re-make the committed outputs (demo profile), the glossary and the figure of the full-size runs
	$(if $(filter-out demo,$(PROFILE)),$(error refresh re-makes the outputs of the demo profile: leave PROFILE=$(PROFILE) out))
	@$(RUN) -m helpers.tools.execute refresh $(SOURCES) notebooks/teaching/assignment.ipynb $(LIMIT)
	@$(RUN) -m helpers.tools.glossary
	@$(RUN) -m helpers.tools.workbook
	@$(RUN) -m helpers.tools.answers
	@cp "$(RUNS)/figures/06_full_size.png" data/runs/full-size.png

workbook: | develop  ## the student's notebooks, exercises unsolved (notebooks/workbook), and the teacher's answer key
	@$(RUN) -m helpers.tools.workbook
	@$(RUN) -m helpers.tools.answers

slides: | develop  ## the projected part of every notebook, for teachers: build/slides, which needs no network
	@$(RUN) -m helpers.tools.slides

develop:  ## install what working on it needs as well: tests, lint, refresh

address: | env  ## REPO=owner/name: put the repository's address into set-up cells, links, README, CITATION.cff (once)
	@$(RUN) -m helpers.tools.address "$(REPO)"

release-check: | env  ## fails while the address is the placeholder OWNER/REPO
	@$(RUN) -m helpers.tools.address --check

##@ Measure

bench: | develop  ## all of tests/benchmarks: speed against named peers, searches, seeds (over an hour)
	$(RUN) -m tests.benchmarks

test-cpus: run-all | develop  ## what picks a fast path, and notebooks 07 and 08, as older processors would run them
	$(RUN) -m tests.cpus

gpu-proof: | develop  ## on a CUDA machine, all that only a GPU can prove, and the full run: build/gpu-proof
	@$(RUN) -m tests.gpu_proof

# What the first run of make installs.
.venv/.ready: requirements.txt requirements-dev.txt
	python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: the series needs Python 3.11 or newer")'
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	touch $@
