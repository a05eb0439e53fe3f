# Two commands set everything up on a machine that has only Python >= 3.11 and make: `make sweep` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_SECONDS ?= 60
FUZZ_ARGS ?=
CHAOS_ARGS ?= --seconds 300 --seed 1

.PHONY: sweep test test-deep test-all check bench chaos fuzz lock format clean

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; v = sys.version_info; v < (3, 11) and sys.exit("fersweep needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.12 $(MAKECMDGOALS)" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# The main job with no data and no account: a small SimpleCNN sweep on synthetic faces.
sweep: $(READY)
	WANDB_MODE=$${WANDB_MODE:-offline} $(BIN)/fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=4 --count 6 --slots auto

# The default run: fast, deterministic, and in need of nothing but this environment. tests/README.md says what is in it.
DEEP := process or cluster or stock or browser or real_data or gpu
WORKERS ?= logical
# A worker that dies is not replaced: pytest-xdist, which hands out whole files, would then wait for ever.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --max-worker-restart 0 --dist loadfile -m "not ($(DEEP))" --durations 20 $(TEST_ARGS)

# The deep suites, one after the other; one kind alone: make test-deep DEEP=stock.
test-deep: $(READY)
	$(BIN)/python -m pytest -m "$(DEEP)" --durations 20 $(TEST_ARGS)

test-all: test test-deep

# Types on each platform, with a cache for each: mypy discards one that another platform has filled.
PLATFORMS := linux darwin win32
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	for platform in $(PLATFORMS); do $(BIN)/mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit 1; done
	$(BIN)/lint-imports --config pyproject.toml

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

# Kills, pauses and a broken server for some minutes a search; fails if a trial is lost, doubled or not the same bits.
chaos: $(READY)
	$(BIN)/python -m tests.chaos --search optuna $(CHAOS_ARGS)
	$(BIN)/python -m tests.chaos --search optuna --in-turns $(CHAOS_ARGS)
	$(BIN)/python -m tests.chaos --search wandb $(CHAOS_ARGS)

# Coverage-guided fuzzing of every reader of foreign files, FUZZ_SECONDS each; FUZZ_ARGS may name some of them.
fuzz: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python 'atheris>=3.0'
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

# Without addresses: names, versions and hashes only, so that it holds behind any index.
lock:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --extra dev --no-header --no-annotate pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
