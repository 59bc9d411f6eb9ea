# Everything works from a clean clone with python3 (3.11 or newer), its venv module and make.
# PYTHON=python3.12 chooses another interpreter, VENV=path another place for the environment, ARGS= adds to the demo.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DOCS ?= .venv-docs
KILLS ?= 200
CASES ?= 10000
N ?= 10
PYTEST := --numprocesses 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-long test-all compat compat-release flaky chaos fuzz container bench bench-compare docs lock check format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## Make the virtual environment and install into it

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON); install Python 3.11 or newer, or set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; set PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) (PyTorch is large: some minutes on the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Train the ablations on the embedded data, compare them (about 3 minutes on 2 cores)
	$(BIN)/python src/train.py -m model.lrn=true,false pool.overlap=true,false hydra/launcher=joblib $(ARGS)
	@echo
	@echo "Next:  $(BIN)/python src/train.py -m model.dropout=0.2,0 seed=0,1,2    a sweep of your own"
	@echo "       $(BIN)/python src/train.py --help                               every key and what it means"

test: $(INSTALLED) ## Run the tests
	@$(BIN)/python -m pytest $(PYTEST) -m 'not long'

test-fast: $(INSTALLED) ## Run the tests that do not train
	@$(BIN)/python -m pytest $(PYTEST) -m 'not slow and not long'

test-long: $(INSTALLED) ## Run only the long tests, with a SLURM of their own (see CONTRIBUTING.md)
	@$(BIN)/python -m pytest -m long

test-all: test container test-long compat-release ## Run all tests, with those of the image (see CONTRIBUTING.md)

compat: $(INSTALLED) ## Compare the bits of results with those of a commit, BASE= (two minutes)
	@test -n "$(BASE)" || { echo "error: no commit given; make compat BASE=main, or make compat-release" >&2; exit 1; }
	@$(BIN)/python tests/compat.py "$(BASE)" $(ARGS)

compat-release: $(INSTALLED) ## The same with the last release; skipped in a clone that does not have it
	@$(BIN)/python tests/compat.py --release $(ARGS)

flaky: $(INSTALLED) ## Run the tests that start processes N=10 times, with one busy loop per core
	@$(BIN)/python benchmarks/repeat.py $(N) $(BIN)/python -m pytest $(PYTEST) -m 'processes and not long' -q $(ARGS)

chaos: $(INSTALLED) ## Kill runs and sweeps at KILLS random moments and compare their bits (10 s per kill)
	@$(BIN)/python tests/chaos.py --kills $(KILLS) $(ARGS)

fuzz: $(INSTALLED) ## Damage CASES=10000 records, plans, claims, stores and source files, and read them (half an hour)
	@$(BIN)/python tests/fuzz.py --cases $(CASES) $(ARGS)

container: $(INSTALLED) ## Build and try the image with podman and Debian's packages (as root, about ten minutes)
	@$(BIN)/python tests/container.py $(ARGS)

bench: $(INSTALLED) ## Run every benchmark, on an otherwise idle machine (about three hours; benchmarks/README.md)
	@$(BIN)/python benchmarks/all.py

bench-compare: $(INSTALLED) ## Benchmark this tree against a commit, BASE= (half an hour); fails if it is 10 % slower
	@test -n "$(BASE)" || { echo "error: no commit given; make bench-compare BASE=main" >&2; exit 1; }
	@$(BIN)/python benchmarks/compare.py $(BASE) $(ARGS)

docs: $(DOCS)/installed ## Build the documentation as a site in site/; any warning is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict # not --quiet, which hides warnings from --strict
	@echo "Open site/index.html, or see it live with: $(DOCS)/bin/mkdocs serve"

$(DOCS)/installed: pyproject.toml
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --group docs
	@touch $@

lock: $(INSTALLED) ## Update requirements.lock, the image's packages, with the versions installed here
	@command -v uv >/dev/null || { echo "error: no uv; pip install uv" >&2; exit 1; }
	@$(BIN)/python -m pip freeze --quiet --exclude-editable > $(VENV)/versions
	uv pip compile pyproject.toml --quiet --extra container --constraint $(VENV)/versions --generate-hashes --no-annotate \
		--python-version 3.12 --python-platform x86_64-manylinux_2_28 --no-emit-index-url \
		--custom-compile-command 'make lock' --output-file requirements.lock

check: $(INSTALLED) ## Check format, lint and types (tests do so too; types in test-all)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(INSTALLED) ## Format the code and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment and caches; runs/ and cache/ stay
	rm -rf $(VENV) $(DOCS) site .pytest_cache .ruff_cache
