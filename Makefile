# Everything a newcomer needs: `make demo`, `make test`. Both do their own set-up in .venv, once.
#   make TORCH=cuda ...   takes the CUDA build of torch instead of the CPU one
PYTHON ?= python3.11
TORCH ?= cpu
VENV := .venv
PY := $(VENV)/bin/python
STAMP_CORE := $(VENV)/.stamp-core-$(TORCH)
STAMP_DEV := $(VENV)/.stamp-dev-$(TORCH)
# Where pip is told to look for wheels besides the index; uv does not read pip's configuration.
LINKS = $(shell $(PY) -m pip config get global.find-links 2>/dev/null || printenv PIP_FIND_LINKS)
# Bytecode is compiled here once, not at each first import.
UV = $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(PY) $(addprefix --find-links ,$(LINKS))
ifeq ($(TORCH),cpu)
CONSTRAINTS := constraints.txt
else
CONSTRAINTS := $(VENV)/constraints-$(TORCH).txt
endif

.PHONY: demo test lint types check bench-solvers clean

demo: $(STAMP_CORE)
	$(VENV)/bin/poise train language --recipe demo

test: $(STAMP_DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -n 2

lint: $(STAMP_DEV)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The peer library is compared with where it can be installed; without it the bench is poise's half alone.
bench-solvers: $(STAMP_CORE)
	$(UV) --no-deps 'torchdeq==0.1.0' || echo "poise: torchdeq could not be installed; its half is left out." >&2
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.solvers
	$(PY) -m benchmarks.chart

$(PY):
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet uv

$(VENV)/constraints-cuda.txt: constraints.txt | $(PY)
	sed 's/^torch==.*/torch>=2.8/' constraints.txt > $@

# The pinned CPU build is looked for where pip looks, then on PyTorch's own CPU index; nothing else is tried,
# so that a machine without a CPU wheel never downloads gigabytes of CUDA by surprise.
$(STAMP_CORE): pyproject.toml $(CONSTRAINTS) | $(PY)
	$(UV) -c $(CONSTRAINTS) -e '.[train]' \
	  || { [ $(TORCH) = cpu ] && $(UV) -c $(CONSTRAINTS) --torch-backend cpu -e '.[train]'; } \
	  || { echo "poise: set-up failed, for the reason above; if no wheel of torch fits constraints.txt here, put one where pip finds it or run 'make TORCH=cuda'." >&2; exit 1; }
	touch $@

$(STAMP_DEV): $(STAMP_CORE)
	$(UV) -c $(CONSTRAINTS) --group dev
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
