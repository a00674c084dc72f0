# Every target sets up .venv first; nothing is installed by hand.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without bytecode every process would compile torch and pandas again, ten seconds each.
unexport PYTHONDONTWRITEBYTECODE

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "make: expected Python 3.10 or newer, got $$($(PYTHON) --version 2>&1); use: make PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "make: python3 has no venv module; on Debian or Ubuntu: apt-get install python3-venv"; exit 2; }
	@echo "Installing pinned dependencies into $(VENV) (once) ..."
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: help setup report test attack bench gpucheck size options docs lab format lint lock clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make .venv with pinned dependencies

report: setup ## run the demo plan and print the path of its page
	@$(BIN)/fopro report reports/plans/demo.yaml --out reports/demo

test: setup ## run the whole suite, in two processes of one thread
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

attack: setup ## kills, faults, fuzzed input and simulation; a table of tries and failures
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.attack --count $(or $(COUNT),1000)

bench: setup ## speed as ratios to plain alternatives, side by side
	@$(BIN)/python -m benchmarks all

gpucheck: setup ## prove results and measure speed on a GPU, in under eight minutes
	@$(BIN)/python -m tools.gpu_check

size: ## count files and lines
	@for d in fopro_lab tests benchmarks tools; do printf '%-11s %4s files %6s lines\n' $$d $$(git ls-files "$$d/*.py" | wc -l) $$(git ls-files -z "$$d/*.py" | xargs -0 cat | wc -l); done

options: setup ## write the tables of all options to docs/options.md
	@$(BIN)/python -m tools.option_tables > docs/options.md

docs: setup ## build the documentation into site/, readable without a network
	@$(BIN)/mkdocs build --quiet && echo site/index.html

lab: setup ## open JupyterLab on notebook 00, where one begins
	@FOPRO_HOME=$(CURDIR) $(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb

format: setup ## format the code and strip the notebooks
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/nbstripout notebooks/*.ipynb

lint: setup ## ruff, mypy and the import arrows
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

lock: setup ## pin the newest allowed versions in requirements.lock, with hashes
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.10 --upgrade \
		--generate-hashes --no-header --no-annotate --quiet -o requirements.lock

clean: ## remove .venv and caches, keep reports
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
