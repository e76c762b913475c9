# Two commands do everything on a fresh clone: `make round` and `make test`. All targets are idempotent.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: round test setup lint clean

round: setup  ## install if needed, then run one PACED-RL round
	$(BIN)/kedro run --pipelines=paced_round

test: lint  ## install if needed, then every check
	$(BIN)/pytest

setup: $(STAMP)

# torch first and exactly: the build that is installed, CPU or CUDA, is the one that everything after it accepts.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

lint: setup  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## remove the environment; data and runs stay
	rm -rf $(VENV)
