# `make demo` and `make test` need Python >= 3.11 and nothing else; what they install goes into .venv.
# More for the command behind a target: make test ARGS="tests/pricing -x", make demo ARGS=--serve

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The newest Python that runs (a version manager's shim may stand on the PATH and fail) and can make a .venv.
IS_SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	if $$python -c '$(IS_SUITABLE)' 2>/dev/null; then echo $$python; break; fi; done)

.PHONY: demo smoke test test-long bench bench-peers check format clean

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

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(or $(PYTHON),false) -c '$(IS_SUITABLE)' 2>/dev/null || \
		{ echo "ducto-redis needs Python 3.11 or newer, with venv; $(or $(PYTHON),what is on the PATH) is not." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-for-demo: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install --editable '.[embedded,ledger,cli,demo]'
	touch $@

# pip reads dependency groups from 25.1 on.
$(VENV)/installed-for-development: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install 'pip>=25.1'
	$(PIP) install --editable '.[all]' --group dev
	touch $(VENV)/installed-for-demo $@

$(VENV)/installed-for-benchmarks: $(VENV)/installed-for-development
	$(PIP) install --group bench
	touch $@

$(VENV)/installed-for-peers: $(VENV)/installed-for-benchmarks
	$(PIP) install --group peers
	touch $@
