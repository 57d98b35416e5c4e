# make run  [ARGS="--cl_exp=permmnist ..."]   run an experiment
# make test                                   lint and test
# Both make .venv from requirements.txt first, where it is missing or older.

PYTHON ?= python3
ARGS ?=

.PHONY: run test

run: .venv/ready
	.venv/bin/python run.py $(ARGS)

test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/python -m pytest

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --requirement requirements.txt
	touch .venv/ready
