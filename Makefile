# The two commands a fresh machine needs: `make demo` and `make test`. Both set up .venv on their first run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On Linux, PyPI's own build of PyTorch brings CUDA. Where no CPU build is configured for pip, name PyTorch's CPU index:
#   make demo TORCH_INDEX=<address of the CPU wheels>
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo test test-long lint types check clean bench-stream

demo: $(VENV)/.ready
	$(BIN)/secateur demo --out demo-out

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2

test-long: $(VENV)/.ready
	SECATEUR_THOROUGH=1 $(BIN)/python -m pytest -n 2 -m ""

lint: $(VENV)/.ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.ready
	$(BIN)/mypy

check: lint types test

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	touch $@

bench-stream: $(VENV)/.ready
	$(BIN)/python benchmarks/stream_cut.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
