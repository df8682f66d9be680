# Everything happens in .venv, which the first target that needs it makes.
#   make demo    install, train on the bundled sample, refine, write demo-output/report/report.html
#   make test    ruff, mypy and the whole test suite (what .ci/run calls)

PYTHON ?= python3
# The large samples of `make results`.
SHOWERS ?= $(or $(HEPBRIDGE_SHOWERS),../shared/showers)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
REQUIREMENTS := pyproject.toml constraints.txt

# Two test workers share two cores: more threads per worker only fight each other.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: help demo test lint docs results results-simulators results-unfolding results-throughput results-generation results-refine-or-generate results-cylinder training-size reliability clean

help:
	@echo "make demo     train on the bundled sample and write demo-output/report/report.html"
	@echo "make test     lint, types and the whole test suite"
	@echo "make lint     ruff and mypy only"
	@echo "make docs     build docs/_build/html"
	@echo "make results  train on the large samples and rewrite docs/results"
	@echo "make results-simulators  judge and time GFLASH and Geant4 and rewrite their page"
	@echo "make results-unfolding  generate events, judge every unfolding method and rewrite its page"
	@echo "make results-throughput  time bulk refinement of 10,000 to 10 million showers and write its page"
	@echo "make results-generation  train and judge the generators on the showers in data/, and write their page"
	@echo "make results-refine-or-generate  refiner against generators on the SQuIRELS showers"
	@echo "make results-cylinder  the refiner on the 6,480 voxels of a bigger calorimeter"
	@echo "make training-size  how many training pairs are needed (before make results)"
	@echo "make reliability  failure drills and fuzzing in earnest, and their page (at most about 25 minutes)"
	@echo "make clean    remove caches and build outputs (not .venv)"

demo: $(RUNTIME)
	$(BIN)/hepbridge demo -o demo-output --overwrite

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not gpu"

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DEV)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

results: $(DEV)
	$(BIN)/python tools/results/squirels.py --showers $(SHOWERS)

results-simulators: $(DEV)
	GEANT4_DATA_DIR="$(or $(GEANT4_DATA_DIR),$(SHOWERS)/../geant4-data)" $(ONE_THREAD) \
	  $(BIN)/python tools/results/simulators.py --showers $(SHOWERS)

results-unfolding: $(DEV)
	$(ONE_THREAD) $(BIN)/python tools/results/unfolding.py

results-throughput: $(RUNTIME)
	$(ONE_THREAD) $(BIN)/python tools/results/throughput.py --large -o docs/results/throughput.md

results-generation: $(RUNTIME)
	$(ONE_THREAD) $(BIN)/python tools/results/generation.py

results-refine-or-generate: $(DEV)
	$(ONE_THREAD) $(BIN)/python tools/results/refine_or_generate.py --showers $(SHOWERS)

results-cylinder: $(DEV)
	$(ONE_THREAD) $(BIN)/python tools/results/cylinder.py

training-size: $(RUNTIME)
	$(BIN)/python tools/results/training_size.py --showers $(SHOWERS)

reliability: $(DEV)
	$(ONE_THREAD) $(BIN)/python tools/reliability.py -o docs/results/reliability.md

clean:
	rm -rf build dist demo-output docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "hepbridge needs Python 3.11 or newer, but '$(PYTHON)' was not found; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hepbridge needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1); name a newer one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): $(REQUIREMENTS) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

$(DEV): $(REQUIREMENTS) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@ $(RUNTIME)
