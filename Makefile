# `make demo` and `make test` need Python >= 3.11 and nothing else; what they install goes into .venv.
# More for the command behind a target: make test ARGS="tests/pricing -x", make demo ARGS=--serve

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The newest Python that runs (a version manager's shim may stand on the PATH and fail) and can make a .venv.
IS_SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	if $$python -c '$(IS_SUITABLE)' 2>/dev/null; then echo $$python; break; fi; done)

# Where LOCKED=1, as in CI, what is installed is what requirements/locked.txt names, by its hashes.
LOCKED ?=
OLDEST := .venv-oldest

.PHONY: demo smoke test test-long test-oldest bench bench-peers check format lock clean

demo: $(VENV)/installed-for-demo
	$(BIN)/ducto demo $(ARGS)

# The few tests that show that it works, in the files that have them.
SMOKE := tests/middleware/test_openai_client.py tests/journal/test_worker.py tests/cli/demo/test_demo.py

smoke: $(VENV)/installed-for-development
	$(BIN)/python -m pytest -m "smoke and not long" $(SMOKE) $(ARGS)

# Two processes: each starts servers of its own, and a file's tests stay together.
test: $(VENV)/installed-for-development
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-long: $(VENV)/installed-for-development
	$(BIN)/python -m pytest -m long --timeout=1800 $(ARGS)

# The core of the tests, with the oldest version of each dependency.
CORE := tests/pricing tests/engine tests/store tests/link tests/manager/test_charging.py tests/manager/test_blocking.py \
	tests/middleware/test_metering.py tests/middleware/test_streams.py tests/middleware/test_stored_answers.py \
	tests/middleware/test_websockets.py tests/ledger tests/journal/test_worker.py tests/cli

test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile $(CORE) $(ARGS)

bench: $(VENV)/installed-for-benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

# What others would use instead.
bench-peers: $(VENV)/installed-for-peers
	$(BIN)/python -m benchmarks peers $(ARGS)

check: $(VENV)/installed-for-development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-for-development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After a change of the dependencies in pyproject.toml.
lock: $(VENV)/installed-for-development
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --group bench --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --upgrade -o requirements/locked.txt

clean:
	rm -rf $(VENV) .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(or $(PYTHON),false) -c '$(IS_SUITABLE)' 2>/dev/null || \
		{ echo "ducto-redis needs Python 3.11 or newer, with venv; $(or $(PYTHON),what is on the PATH) is not." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-for-demo: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install --editable '.[embedded,ledger,cli,demo]'
	touch $@

# pip reads dependency groups from 25.1 on.
$(VENV)/installed-for-development: pyproject.toml requirements/locked.txt | $(VENV)/pyvenv.cfg
ifdef LOCKED
	$(PIP) install --require-hashes --requirement requirements/locked.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
else
	$(PIP) install 'pip>=25.1'
	$(PIP) install --editable '.[all]' --group dev
endif
	touch $(VENV)/installed-for-demo $@

$(OLDEST)/installed: pyproject.toml requirements/oldest.txt
	$(or $(PYTHON_OF_OLDEST),$(PYTHON)) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip --quiet install 'pip>=25.1'
	$(OLDEST)/bin/python -m pip --quiet install --constraint requirements/oldest.txt --editable '.[all]' --group test
	touch $@

$(VENV)/installed-for-benchmarks: $(VENV)/installed-for-development
	$(PIP) install --group bench
	touch $@

$(VENV)/installed-for-peers: $(VENV)/installed-for-benchmarks
	$(PIP) install --group peers
	touch $@
