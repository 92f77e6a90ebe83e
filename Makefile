# The commands that README, packagers and scripts rely on. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
DATA ?= data
BIN := $(VENV)/bin
PLAIT := $(BIN)/plait
TESTS ?= tests

.PHONY: run test demo bench lint format clean

run: $(VENV)/.installed $(DATA)/homeserver.yaml
	$(PLAIT) run --config $(DATA)/homeserver.yaml

$(DATA)/homeserver.yaml: | $(VENV)/.installed
	$(PLAIT) generate-config --server-name localhost --data-dir . --output $@

test: $(VENV)/.installed-test
	$(BIN)/python -m tests $(TESTS)

demo: $(VENV)/.installed-test
	$(BIN)/python -m tests.interop.demo

bench: $(VENV)/.installed-test
	$(BIN)/python -m bench $(BENCH)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-lint: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint,test]'
	touch $@

clean:
	rm -rf $(VENV) _trial_temp build *.egg-info
