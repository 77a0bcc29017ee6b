# make demo    own environment, Fashion-MNIST, server and worker, one training over HTTP, everything stopped again
# make test    what must pass before a change lands; make test-all adds the tests marked slow

SHELL := /bin/bash
PYTHON ?= $(shell for python in python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
TORCH := torch==2.14.1 torchvision==0.29.1
SUITES := tests/cnn tests/worker tests/server tests/integration tests/browser tests/faults tests/test_*.py
DATA_DIR := $(or $(EPOCHD_DATA_DIR),epochd-data)

.NOTPARALLEL:
.PHONY: demo test test-all lint docs bench chaos install kernels lock data services clean

# The server runs on a free port and is stopped with everything it started, however the recipe ends. Job control keeps a
# Ctrl-C from it, so that demo.py can still cancel its job.
demo: .venv/installed kernels data
	@set -m; export EPOCHD_DATA_DIR=$(DATA_DIR); log=$(DATA_DIR)/demo.log; mkdir -p $(DATA_DIR); \
	export EPOCHD_PORT=$$($(BIN)/python -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'); \
	$(BIN)/epochd up --dev >"$$log" 2>&1 & server=$$!; \
	trap 'kill -TERM $$server 2>/dev/null; wait $$server; echo "server stopped; its log is $$log"' EXIT; \
	until grep -q "ready at" "$$log"; do \
		kill -0 $$server 2>/dev/null || { tail -n 30 "$$log" >&2; exit 1; }; sleep 0.2; \
	done; \
	$(BIN)/python examples/demo.py --url "http://127.0.0.1:$$EPOCHD_PORT" --output $(DATA_DIR)/demo || exit; \
	echo -n "load_model.py "; $(BIN)/python examples/load_model.py $(DATA_DIR)/demo $(DATA_DIR)

test: lint data services
	@$(call run_suites,-m "not slow")

test-all: lint data services
	@$(call run_suites)

# $(1): further arguments of pytest. Every suite runs, each with its time; the status is that of all of them.
define run_suites
status=0; times=(); \
for suite in $(SUITES); do \
	start=$$SECONDS; $(BIN)/python -m pytest $(1) "$$suite" || status=1; \
	times+=("$$suite: $$((SECONDS - start)) s"); \
done; \
printf '%s\n' "$${times[@]}"; exit $$status
endef

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/python docs/techniques.py

# About an hour, on a machine that does nothing else; each writes its table to benchmarks/results.
bench: .venv/installed-bench kernels data
	$(BIN)/python benchmarks/throughput.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/steps.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/time_to_accuracy.py --data-dir $(DATA_DIR)
	$(BIN)/python -m benchmarks.server_overhead --data-dir $(DATA_DIR)
	$(BIN)/python -m benchmarks.frozen_servers --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/checkpoints.py --data-dir $(DATA_DIR)

# Hundreds of kills, some 20 minutes; --postgresql in ARGS does it on PostgreSQL.
chaos: .venv/installed-dev services
	$(BIN)/python -m benchmarks.chaos $(ARGS)

install: .venv/installed kernels

# Compiled for this machine. Where there is no compiler it says so, and training uses torch's own layers.
kernels: .venv/installed
	@$(BIN)/python -m cnn.native || true

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: neither python3.11 nor python3 is one." >&2; exit 1; }
	$(PYTHON) -m venv .venv

# One stamp per set of extras, so that the installation runs once and again when the lock or the extras change.
.venv/installed: EXTRA := all
.venv/installed-dev: EXTRA := dev
.venv/installed-bench: EXTRA := bench
.venv/installed .venv/installed-dev .venv/installed-bench: requirements.lock pyproject.toml | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check --quiet $(TORCH)
	$(BIN)/pip install --disable-pip-version-check --quiet -c requirements.lock -e '.[$(EXTRA)]'
	@touch $@

lock: .venv/installed-dev
	{ sed '/^[^#]/,$$d' requirements.lock; $(BIN)/pip freeze --exclude-editable; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

data: .venv/installed
	@$(BIN)/python -m cnn.fetch fashion_mnist --data-dir $(DATA_DIR)

# The store's tests run on a real PostgreSQL of their own, those of the page in a real Chromium.
services:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y postgresql; \
	else echo "The tests need PostgreSQL's server programs: apt-get install postgresql" >&2; exit 1; fi
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium; \
	else echo "The tests of the page need Chromium: apt-get install chromium" >&2; exit 1; fi

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
