# Everything happens in .venv of this folder; the system's Python is only asked to make it.

VENV := .venv
STAMP := $(VENV)/.installed
# The first Python new enough; `make PYTHON=/path/to/python3.12 install` chooses another.
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13; do $$name -c \
	'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$name; break; }; done; true)
# More for pytest: `make test ARGS="-m model -x"`; "-n 0" runs the tests one after another, as a debugger wants them.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install quickstart test check format bench docs

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.* ## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP) ## make .venv with Tunesmith and everything to work on it

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
		echo "no Python 3.11 or newer found; install one, or type: make PYTHON=/path/to/python3.11 install"; exit 2; }
	@# Some systems' Python comes without ensurepip; then its own pip, run on .venv, puts pip there.
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV) || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(VENV)/bin/python install -qq pip; }
	@echo "installing into $(VENV); the first time takes a few minutes"
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

quickstart: install ## pull a real model and real data, climb, print the table, write runs/movie-reviews/report.html
	$(VENV)/bin/tunesmith models pull smollm2-135m-instruct
	$(VENV)/bin/tunesmith climb examples/movie-reviews/task.yaml

test: install ## run the quick test suite
	$(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

check: install ## lint, layout of the code, types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: install ## put the layout of the code right
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

bench: install ## run every benchmark beside its peers, write docs/performance.md
	$(VENV)/bin/python benchmarks/_all.py

docs: install ## write the documentation as pages to build/docs
	$(VENV)/bin/python docs/build.py
