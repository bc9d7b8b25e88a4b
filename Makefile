# `make demo` and `make test` are all that a fresh Debian machine needs; .ci/setup installs what is missing.
PYTHON ?= python3
VENV := .venv
# Of random faults, and of messages while memory is measured.
MINUTES ?= 60
PY := $(VENV)/bin/python
SOURCES := sprockets_amqp sprockets_amqp_pytest.py tests examples benchmarks tools docs/conf.py
PIP_INSTALL := .ci/tell $(PY) -m pip install --no-color --progress-bar off --disable-pip-version-check

.PHONY: help demo test test-fast matrix simulate verify held lint docs docs-serve diagrams bench growth soak dist clean

help:
	@echo "make demo      publish an event from a small application, and read it from a queue"
	@echo "make test      run the tests, on RabbitMQ nodes and PostgreSQL servers that they start themselves"
	@echo "make test-fast run, within a minute, those that need no RabbitMQ, PostgreSQL, Prometheus, browser or package index"
	@echo "make matrix    run demo and tests on other systems, created empty, as root: SYSTEMS=\"debian-13 ...\""
	@echo "               PIKA=path, a checkout of pika, for debian-13-pika-next"
	@echo "make simulate  run random schedules of faults in memory: SEEDS=5000; or replay one: SEED=..."
	@echo "make lint      ruff, mypy --strict, lint-imports, codespell, and the public API against that of 1.0"
	@echo "make docs      build the documentation into docs/_build"
	@echo "make docs-serve build it and serve it at http://127.0.0.1:8800"
	@echo "make diagrams  bring diagrams/ and the generated parts of README and docs up to date"
	@echo "make verify    prove what must hold of the declared machines"
	@echo "make held      take a real client through every step that can be caused from outside"
	@echo "make bench     measure against other clients; on other systems, as root: SYSTEMS=\"debian-12 ...\""
	@echo "make growth    measure how costs grow with numbers, and memory for MINUTES=60"
	@echo "make soak      run with random faults for MINUTES=60"
	@echo "make dist      build, from the tagged commit, what is uploaded to a package index: REPOSITORY=https://..."
	@echo "make clean     remove what the other targets made"

$(PY):
	@PYTHON=$(PYTHON) .ci/setup python
	@echo "making $(VENV) ..."
	@.ci/tell $(PYTHON) -m venv $(VENV)

# Each stamp is newer than the files it depends on, so that nothing is installed twice.
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

# Tests spend much of their time waiting for a node, so there is one worker more than there are processors. Tests named
# with T run alone: make test T=tests/test_client.py
WORKERS := $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4)))
test: $(VENV)/.dev
	@.ci/setup broker postgres diagrams browser terminal prometheus git curl
	@$(PY) -m pytest $(or $(T),--numprocesses $(WORKERS) --dist loadgroup)

# The markers come from the fixtures that a test uses; see tests/conftest.py.
test-fast: $(VENV)/.dev
	@.ci/setup diagrams
	@$(PY) -m pytest --hypothesis-profile fast --numprocesses auto --maxprocesses 4 --dist loadgroup -m 'not rabbitmq and not postgres and not browser and not package and not prometheus' $(T)

# All systems together take about an hour.
matrix: $(VENV)/.dev
	@.ci/setup systems
	@$(PY) -m tools.matrix --record $(if $(PIKA),--pika $(PIKA)) $(SYSTEMS); status=$$?; $(PY) -m tools.documents; exit $$status

simulate: $(VENV)/.dev
	@$(PY) -m tools.simulate $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),5000))

# Explores all that the declaration allows, and proves what must hold of it.
verify: $(VENV)/.dev
	@$(PY) -m sprockets_amqp verify

# Takes a real client through every step that can be caused from outside: minutes.
held: $(VENV)/.dev
	@$(PY) -m tools.held

lint: $(VENV)/.dev
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy --strict $(SOURCES)
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/codespell
	@$(PY) -m tools.api

docs: $(VENV)/.dev
	@$(VENV)/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build

docs-serve: docs
	@$(PY) -m http.server --bind 127.0.0.1 --directory docs/_build 8800

# Draws and writes what comes from the declaration and the tests: diagrams/, and generated parts of README and docs.
diagrams: $(VENV)/.dev
	@.ci/setup diagrams
	@$(PY) -m sprockets_amqp diagram
	@$(PY) -m tools.documents

# On this system, or on those that are named, as root: SYSTEMS="debian-12 debian-unstable".
bench: $(VENV)/.bench
	@.ci/setup $(if $(SYSTEMS),systems,broker postgres compiler)
	@$(PY) -m benchmarks$(if $(SYSTEMS),.systems $(SYSTEMS))
	@$(PY) -m tools.documents

growth: $(VENV)/.bench
	@.ci/setup $(if $(SYSTEMS),systems,broker)
	@$(PY) -m benchmarks.$(if $(SYSTEMS),systems $(SYSTEMS) --run="benchmarks.growth --minutes $(MINUTES)",growth --minutes $(MINUTES))
	@$(PY) -m tools.documents

soak: $(VENV)/.dev
	@.ci/setup broker
	@OUTBOX_PROCESS_KILLS=20 OUTBOX_BROKER_KILLS=5 $(PY) -m pytest -o timeout=1800 tests/test_outbox_real.py
	@OUTBOX_FLIP_STEP=1 $(PY) -m pytest -o timeout=7200 tests/test_outbox_damaged.py
	@$(PY) -m tests.soak --minutes $(MINUTES)

dist: $(VENV)/.dev
	@.ci/setup git
	@$(PY) -m tools.release $(REPOSITORY)

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .coverage htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
