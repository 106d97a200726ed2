# Everything a developer or CI runs. Needs Python 3.11+ and a C-free toolchain: no other tool by hand.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GEN := clients/python/sidejudge/v1
PROTOS := $(sort $(wildcard protos/sidejudge/v1/*.proto))
STAMP := $(VENV)/.installed

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## Make .venv with the locked dependencies

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lock: setup ## Rewrite requirements/ from pyproject.toml
	$(BIN)/uv pip compile -q pyproject.toml --extra server --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -o requirements/server.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra server --extra local --group dev --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -o requirements/dev.txt

generate: setup ## Rewrite the generated Python code from protos/
	rm -f $(GEN)/*
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=clients/python --mypy_out=clients/python --grpc_python_out=clients/python --mypy_grpc_out=clients/python $(PROTOS)
	printf '"""Generated from protos/sidejudge/v1; do not edit, run `make generate`."""\n' > $(GEN)/__init__.py

.PHONY: help setup lock generate
