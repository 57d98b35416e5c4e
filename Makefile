# make run  [ARGS="--cl_exp=permmnist ..."]   run an experiment
# make test                                   lint, check types, test
# A process of tests has a thread, as there is one for each processor.
# Both make .venv from requirements.txt and tests/requirements.txt first, where it is missing or
# older.

PYTHON ?= python3
ARGS ?=

.PHONY: run test

run: .venv/ready
	.venv/bin/python run.py $(ARGS)

test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

.venv/ready: requirements.txt tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -r requirements.txt -r tests/requirements.txt
	touch .venv/ready
