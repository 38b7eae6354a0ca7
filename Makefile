# `make demo` and `make test` set everything up from a fresh clone; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SIMULATORS := .venv-mjlab/.ready
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: help setup demo walk test test-simulators test-full smoke check format package bench clean

help:
	@echo "make demo    train Double + dueling + PER on CartPole, evaluate it, plot it"
	@echo "make walk    train a robot with six joints to walk, and film it (walk.mp4)"
	@echo "make test    run the tests"
	@echo "make test-simulators   the tests that need mjlab and PyTorch, in a venv of their own (8 GB)"
	@echo "make test-full   the same with every three axis values in company, and the full counts"
	@echo "make smoke   train two short tasks, and fail where they learn less than the pinned table says"
	@echo "make check   lint and types"
	@echo "make format  put the code into the project's format"
	@echo "make package build the wheel, and train from it in an empty venv; PYTHON=python3.12 says of which Python"
	@echo "make bench   run the peers beside us (in venvs of their own; about an hour and a half)"
	@echo "make setup   only make the .venv"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "qhat needs Python 3.11 to 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,robots,atari,video,demos,dm-control,export,tune,tensorboard,ray,jax-envs]"
	@touch $(READY)

setup: $(READY)

$(SIMULATORS): pyproject.toml constraints-mjlab.txt
	$(PYTHON) -m venv .venv-mjlab
	.venv-mjlab/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-mjlab.txt -e ".[dev,export,mjlab,video]"
	@touch $(SIMULATORS)

demo: $(READY)
	@$(BIN)/python -m qhat.cli.demo

walk: $(READY)
	@run=runs/walk/$$(date +%Y-%m-%d_%H-%M-%S) && $(BIN)/qhat train WalkerWalk-v1 --run-dir $$run \
		&& $(BIN)/qhat play $$run --video walk.mp4

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-simulators: $(SIMULATORS)
	.venv-mjlab/bin/python -m pytest tests/simulators

test-full: export QHAT_FULL := 1
test-full: test

smoke: $(READY)
	$(BIN)/qhat benchmark smoke --check

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

package:
	$(PYTHON) tools/release_check.py

bench: $(READY)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/peers_environment.py cluster
	$(BIN)/python benchmarks/cluster_peers.py

clean:
	rm -rf dist .venv .venv-bench .venv-bench-rejax .venv-bench-cluster .venv-bench-offline .cache
