# Every command of this project; each sets up what it needs.
PYTHON ?= python3
BIN = .venv/bin
SOURCES = rql_lightning tests benchmarks setup.py

.PHONY: setup demo test test-slow format lint type check docs bench clean

setup: .venv/ready

.venv/ready: setup.py constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## customise CartPole and show what changed
	$(BIN)/python -m rql_lightning.reproduce.demo

test: setup  ## within 8 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: setup
	$(BIN)/python -m pytest -m slow

format: setup
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

type: setup
	$(BIN)/mypy

docs: setup  ## every command and code block of the docs, run
	$(BIN)/python -m pytest tests/integration/test_docs.py

check: lint type test

bench: setup  ## against Stable-Baselines3 and highway-env, some twenty minutes
	$(BIN)/python benchmarks/cartpole.py
	$(BIN)/python benchmarks/simulators.py
	$(BIN)/python benchmarks/sac.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
