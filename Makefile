# `make run` and `make test` work on a fresh machine: they make .venv and install from the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORAGE ?= cwerm-store
# cwerm's default; the paper's method; plain training
QUICKSTART := jobs/quickstart.yaml jobs/quickstart-paper.yaml jobs/quickstart-erm.yaml

.PHONY: run test test-stages test-maths test-rest test-all fmt lint clean

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(VENV)/.installed
	$(BIN)/cwerm run $(QUICKSTART) --storage $(STORAGE)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Three processes share the quick tests, and take about as long: those that run stages, those of the maths, of the
# work on Ray itself and of `cwerm run`, and all others.
STAGES_TESTS := tests/stages
MATHS_TESTS := tests/algorithms tests/runtime tests/test_api.py tests/test_label_noise_study.py $(wildcard tests/cli/test_r*.py)

test: lint
	$(MAKE) --jobs 3 --output-sync=target test-stages test-maths test-rest

test-stages:
	$(BIN)/pytest -m "not slow" $(STAGES_TESTS)

test-maths:
	$(BIN)/pytest -m "not slow" $(MATHS_TESTS)

test-rest:
	$(BIN)/pytest -m "not slow" $(addprefix --ignore ,$(STAGES_TESTS) $(MATHS_TESTS))

test-all: lint
	$(BIN)/pytest

fmt: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(STORAGE) build *.egg-info
