# Two commands:  make demo  (the main job)   make test  (the tests, in a few minutes)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready
EXTRAS := .venv-extras

.PHONY: demo test test-all test-extras campaign check venv docs docs-serve lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train, evaluate and decompose on generated scenes; names the page it wrote"
	@echo "make test    the tests, in a few minutes; make test-all adds the slow ones"
	@echo "make test-extras  the tests that need an extra or a browser, in an environment of their own"
	@echo "make campaign  damaged inputs and kills of every kind, in about 20 minutes on two cores"
	@echo "make check   ruff and mypy"
	@echo "make venv    build $(VENV) from the hashed lock, nothing else"
	@echo "make docs    build the documentation in site/; make docs-serve shows it at http://127.0.0.1:8000"
	@echo "make lock    write the lock anew (needs uv)"

venv: $(READY)

$(READY): requirements/lock.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unscene needs Python 3.11 or newer; name one: make PYTHON=python3.12 venv")'
	@rm -f $(READY)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lock.txt -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

# One thread a process: OpenMP's threads would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test: venv
	$(PYTEST) -m "not slow"

test-all: venv
	$(PYTEST)

# Extras are not in the hashed lock. Without a chromium in the PATH the browser test skips.
test-extras: requirements/lock.txt
	test -x $(EXTRAS)/bin/python || $(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lock.txt -r requirements/build.txt
	$(EXTRAS)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[explore,export,hub,microscopy,supervision,trackio,video,vizdoom,wandb]" playwright
	OMP_NUM_THREADS=1 $(EXTRAS)/bin/python -m pytest -n 2 -rs $$(grep -rlE "importorskip|needs the extra" tests --include="*.py")

campaign: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: venv
	$(BIN)/python -m unscene demo --out demo

$(DOCS_READY): requirements/docs.txt
	@rm -f $(DOCS_READY)
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $(DOCS_READY)

docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

docs-serve: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs serve

lock:
	requirements/lock.sh

clean:
	rm -rf $(VENV) $(DOCS) $(EXTRAS) site demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
