# Every command of this project; each sets up what it needs.
PYTHON ?= python3
BIN = .venv/bin
SOURCES = rql_lightning tests benchmarks docs setup.py
FAST_TESTS = $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'
# NumPy ignores the names of features that a processor lacks.
AVX512 = AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4

.PHONY: setup demo test test-slow test-portable test-oldest test-avx2 test-shuffled
.PHONY: regress format lint type check docs test-docs bench clean

setup: .venv/ready

.venv/ready: setup.py constraints.txt pyproject.toml
	@echo 'Installing into .venv, which takes a few minutes'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## customise CartPole and show what changed
	$(BIN)/python -m rql_lightning.reproduce.demo

test: setup  ## within 8 minutes on 2 cores
	$(FAST_TESTS)

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-portable: test-oldest test-avx2 test-shuffled  ## the fast tests as on other processors and in other orders

test-oldest: setup
	@echo '== fast tests with the kernels of the oldest processors: PyTorch, oneDNN, MKL, NumPy, OpenBLAS, Numba =='
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	NPY_DISABLE_CPU_FEATURES='$(AVX512) X86_V3 AVX2 FMA3' OPENBLAS_CORETYPE=Nehalem NUMBA_CPU_NAME=generic \
	$(FAST_TESTS)

test-avx2: setup
	@echo '== fast tests with the kernels of processors with AVX2 and without AVX-512: PyTorch, NumPy =='
	ATEN_CPU_CAPABILITY=avx2 NPY_DISABLE_CPU_FEATURES='$(AVX512)' $(FAST_TESTS)

# pytest-randomly shuffles modules, classes and functions, and seeds Python, NumPy and PyTorch anew before each test.
test-shuffled: setup
	@for seed in 1 2; do \
		echo "== fast tests in random order $$seed, hashes seeded by $$seed =="; \
		PYTHONHASHSEED=$$seed $(FAST_TESTS) -p randomly --randomly-seed=$$seed || exit 1; \
	done

format: setup
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports --no-logo --no-cache

type: setup
	$(BIN)/mypy

docs: .venv/docs-ready  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

test-docs: setup  ## every command and code block of the docs, run; the site, once `make docs` has been run
	$(BIN)/python -m pytest tests/integration/test_docs.py tests/integration/test_site.py

check: lint type test

regress: setup  ## does this code still give the committed results? some ten minutes
	$(BIN)/python -m rql_lightning.reproduce.regress docs/results/table1/results.csv

bench: setup  ## against Stable-Baselines3 and highway-env, some twenty minutes
	$(BIN)/python benchmarks/cartpole.py
	$(BIN)/python benchmarks/simulators.py
	$(BIN)/python benchmarks/sac.py
	$(BIN)/python benchmarks/mcts.py

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
