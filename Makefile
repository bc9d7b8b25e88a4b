# `make demo` and `make test` are all that a fresh Debian machine needs; .ci/setup installs what is missing.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := $(wildcard sprockets_amqp tests examples benchmarks)
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint diagrams bench soak clean

help:
	@echo "make demo      publish an event from a small application and read it back from a queue"
	@echo "make test      run the tests, against RabbitMQ nodes that they start themselves"
	@echo "make lint      ruff check, ruff format --check, mypy --strict"
	@echo "make diagrams  render states/ into diagrams/"
	@echo "make bench     measure against other clients"
	@echo "make soak      an hour of random faults"
	@echo "make clean     remove what the others made"

$(PY):
	@PYTHON=$(PYTHON) .ci/setup python
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

# Each stamp is newer than what it was made from, so that nothing is installed twice.
$(VENV)/.run: setup.cfg pyproject.toml | $(PY)
	@echo "installing sprockets_amqp into $(VENV) ..."
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml | $(PY)
	@echo "installing sprockets_amqp and what its tests need into $(VENV) ..."
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: $(VENV)/.dev
	@echo "installing the other clients into $(VENV) ..."
	@$(PIP_INSTALL) --editable '.[dev,bench]'
	@touch $@

demo: $(VENV)/.run
	@[ -n "$$AMQP_URL" ] || .ci/setup broker
	@$(PY) -m examples.demo

# Much of the time a test waits for a broker, so that several share the machine. Those that are named with T run alone:
# make test T=tests/test_client.py
test: $(VENV)/.dev
	@.ci/setup broker diagrams browser terminal
	@$(PY) -m pytest $(or $(T),--numprocesses auto --maxprocesses 4 --dist loadgroup)

lint: $(VENV)/.dev
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy --strict $(SOURCES)

# What is drawn and written from the declaration and the tests: diagrams/, and the README's tables.
diagrams: $(VENV)/.dev
	@.ci/setup diagrams
	@$(PY) -m sprockets_amqp diagram
	@$(PY) -m tests.test_readme
	@$(PY) -m tests.faults.matrix

bench: $(VENV)/.bench
	@.ci/setup broker compiler
	@$(PY) -m benchmarks
	@$(PY) -m tests.test_readme

soak: $(VENV)/.dev
	@.ci/setup broker
	@$(PY) -m tests.soak

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
