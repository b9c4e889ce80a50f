# The system's Python on Debian; PYTHON=... overrides it.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= edge

.PHONY: run test lint unit clean

run: $(VENV)/.run
	@exec $(BIN)/edge-agent --profile $(PROFILE)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check wheel
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[test]'
	@touch $@

# Beside supervisord, circusd, runit and s6: benchmarks/README.md.
.PHONY: bench
bench:
	@benchmarks/run
