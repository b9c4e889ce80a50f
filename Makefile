# The system's Python on Debian; PYTHON=... overrides it.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check --no-input
PROFILE ?= edge
# Of the packages; left out: the one of the source, and every architecture.
VERSION ?=
ARCHITECTURES ?=

.PHONY: run test check unit here vm guest lab pi powercuts bench bench-device bench-pressure packages pins packaged clean

# Run the agent in the foreground; Ctrl-C stops everything. PROFILE=... chooses another profile.
# Byte code is made first: sandboxed services cannot write it, and compiling is a third of their start.
run: $(VENV)/.run
	@$(BIN)/python -m compileall -q edge_agent
	@exec $(BIN)/edge-agent --profile $(PROFILE)

# Everything: style, types, layers, then all tests, those on a real kernel in a virtual machine included.
test: $(VENV)/.test
	sh tests/install
	sh tests/vm/install
	sh packaging/install tests
	$(MAKE) check
	$(MAKE) --jobs=2 --output-sync=target --keep-going lab guest here packaged

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
	$(BIN)/pytest --ignore=tests/vm --ignore=tests/guest --ignore=tests/packaging

# The packages: made, looked through, installed into small Debian systems (as root).
packaged: $(VENV)/.test
	sh packaging/install tests
	$(BIN)/pytest tests/packaging

# On a real kernel, in virtual machines: the agent inside one; the lab itself, boots and power cuts.
vm: guest lab

guest: $(VENV)/.test
	sh tests/vm/install
	EDGE_AGENT_VM=required $(BIN)/pytest tests/vm/test_guest.py

lab: $(VENV)/.test
	sh tests/vm/install
	sh packaging/install
	EDGE_AGENT_VM=required $(BIN)/pytest tests/vm --ignore=tests/vm/test_guest.py

# The package on Pi-class machines (arm64 under bookworm and trixie): 20 tries of all that must keep services; an hour.
pi: $(VENV)/.test
	sh tests/vm/install
	sh tests/vm/install arm64
	sh packaging/install
	EDGE_AGENT_VM=required EDGE_AGENT_TEST_MACHINES="bookworm-arm64 trixie-arm64" EDGE_AGENT_TEST_RESTARTS=20 \
		$(BIN)/pytest tests/vm/test_package.py

# A node whose power is cut at CUTS random moments, and looked at after each boot.
CUTS ?= 50
powercuts: $(VENV)/.test
	sh tests/vm/install
	$(BIN)/python -m tests.vm.powercuts --count $(CUTS)

# Memory and boot of the package on Pi-class machines: benchmarks/README.md.
bench-device: $(VENV)/.test packages
	sh tests/vm/install
	sh tests/vm/install arm64
	$(BIN)/python -m benchmarks.device bookworm-arm64 trixie-arm64 --packages dist --keep

# Beside supervisord, circusd, runit and s6: benchmarks/README.md.
bench: $(VENV)/.run
	@benchmarks/run

# In virtual machines, beside limits, systemd-oomd and earlyoom under pressure: benchmarks/README.md.
bench-pressure: $(VENV)/.test
	sh tests/vm/install
	@$(BIN)/python -m benchmarks.pressure

# .deb and .rpm for every architecture into dist/ (as root: a small Debian 13 tree compiles for its Python).
# VERSION=... and ARCHITECTURES="amd64 ..." choose.
packages: $(VENV)/.package
	sh packaging/install
	PYTHONPATH=packaging $(BIN)/python -m builder $(if $(VERSION),--version $(VERSION)) --architectures $(ARCHITECTURES)

# Renew what the packages contain: the newest releases inside the bounds of pyproject.toml, with the hashes of their files.
pins: $(VENV)/.package
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --custom-compile-command 'make pins' \
		--python-version 3.11 --output-file packaging/requirements.txt pyproject.toml

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml
	$(PIP) install wheel 'setuptools>=66'
	$(PIP) install --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) install --no-build-isolation --editable '.[package,test]'
	@touch $@

$(VENV)/.package: $(VENV)/.run
	$(PIP) install --no-build-isolation --editable '.[package]'
	@touch $@
