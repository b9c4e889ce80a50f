# The system's Python on Debian; PYTHON=... overrides it.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check --no-input
PROFILE ?= edge

.PHONY: run test check unit here vm guest lab bench bench-pressure clean

# Run the agent in the foreground; Ctrl-C stops everything. PROFILE=... chooses another profile.
run: $(VENV)/.run
	@exec $(BIN)/edge-agent --profile $(PROFILE)

# Everything: style, types, layers, then all tests, those on a real kernel in a virtual machine included.
test: $(VENV)/.test
	sh tests/install
	sh tests/vm/install
	$(MAKE) check
	$(MAKE) --jobs=3 --output-sync=target --keep-going here guest lab

# What needs no running: seconds.
check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without processes, kernels and machines: for the loop of editing.
unit: $(VENV)/.test
	$(BIN)/pytest tests/unit tests/property tests/fuzz

# On this machine: units, properties, fuzzers, contracts, real agents.
here: $(VENV)/.test
	$(BIN)/pytest --ignore=tests/vm --ignore=tests/guest

# On a real kernel, in virtual machines: the agent inside one; the lab itself, boots and power cuts.
vm: guest lab

guest: $(VENV)/.test
	sh tests/vm/install
	EDGE_AGENT_VM=required $(BIN)/pytest tests/vm/test_guest.py

lab: $(VENV)/.test
	sh tests/vm/install
	EDGE_AGENT_VM=required $(BIN)/pytest tests/vm --ignore=tests/vm/test_guest.py

# Beside supervisord, circusd, runit and s6: benchmarks/README.md.
bench: $(VENV)/.run
	@benchmarks/run

# In virtual machines, beside limits, systemd-oomd and earlyoom under pressure: benchmarks/README.md.
bench-pressure: $(VENV)/.test
	sh tests/vm/install
	@$(BIN)/python -m benchmarks.pressure

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml
	$(PIP) install wheel 'setuptools>=66'
	$(PIP) install --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) install --no-build-isolation --editable '.[test]'
	@touch $@
