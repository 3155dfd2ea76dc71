# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
INSTALLED := $(VENV)/.installed
# Package index to take torch from, such as PyTorch's CPU index; empty is pip's own.
TORCH_INDEX ?=

.PHONY: demo test test-slurm dag lint format lock reference bench simulate reliability clean

$(INSTALLED): envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; run make with PYTHON=<path of a newer one>" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) "$$(grep '^torch==' envs/requirements.lock)")
	$(BIN)/python -m pip install --quiet --requirement envs/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The default study to its end, then its answer.
demo: $(INSTALLED)
	$(BIN)/snakemake --cores $(CORES)
	@$(BIN)/xlift answer config/config.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest

# A real SLURM cluster on this machine, as root on Debian; skipped elsewhere, with the reason.
test-slurm: $(INSTALLED)
	@tests/slurm/install
	$(BIN)/python -m pytest tests/slurm

# Dry-runs of every study in config/ under two profiles: exactly these jobs?
dag: $(INSTALLED)
	$(BIN)/python -m pytest -q -s tests/workflow/test_dag.py -k studies_plan

lint: $(INSTALLED)
	$(BIN)/ruff check src tests bench workflow/scripts envs
	$(BIN)/ruff format --check src tests bench workflow/scripts envs
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format: $(INSTALLED)
	$(BIN)/ruff check --fix src tests bench workflow/scripts envs
	$(BIN)/ruff format src tests bench workflow/scripts envs
	$(BIN)/snakefmt Snakefile workflow

# After a change to pyproject.toml: install what it asks for, then pin what is installed.
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable ".[dev,slurm]"
	$(BIN)/python envs/lock.py

# After a change to the study models or the catalog.
reference: $(INSTALLED)
	$(BIN)/xlift reference

# Speed, memory and overhead on this machine, into bench/results.json; on an idle machine.
bench: $(INSTALLED)
	$(BIN)/python bench/run.py

# After a change to the inference: does it hold its level? About seven minutes on two cores; rewrites docs/statistics*.
simulate: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m xlift.jobs.simulation

# After a change to what is published or resumed: inject every fault; rewrites docs/reliability.md.
reliability: $(INSTALLED)
	$(BIN)/python -m pytest -m fault --write-reliability

clean:
	rm -rf results .snakemake
