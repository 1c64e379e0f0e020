# `make run` and `make test` work on a fresh machine: they make .venv and install from the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORAGE ?= cwerm-store

.PHONY: run test test-all fmt lint clean

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(VENV)/.installed
	$(BIN)/cwerm run jobs/quickstart.yaml --storage $(STORAGE)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m "not slow" -n 2 --dist loadgroup

test-all: lint
	$(BIN)/pytest

fmt: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(STORAGE) build *.egg-info
