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
	$(BIN)/python -m compileall -q server storage clients/python # else the first start compiles, and keeps 3 MiB of it
	touch $@

lock: setup ## Rewrite requirements/ from pyproject.toml
	$(BIN)/uv pip compile -q pyproject.toml --extra server --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -o requirements/server.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra server --extra local --group dev --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -o requirements/dev.txt

generate: setup ## Rewrite the generated Python code and the reference from protos/
	mkdir -p build
	rm -rf $(GEN)
	$(call protoc,clients/python)
	$(call reference,docs/api.md,docs/openapi.json)

# $(1): the folder that gets sidejudge/v1
define protoc
mkdir -p $(1)/sidejudge/v1
PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	--python_out=$(1) --mypy_out=quiet:$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)
printf '"""Generated from protos/sidejudge/v1; do not edit, run `make generate`."""\n' > $(1)/sidejudge/v1/__init__.py
endef

# $(1): the file that gets the reference of the API, $(2): the one that gets the OpenAPI document
define reference
$(BIN)/python -m grpc_tools.protoc -Iprotos --include_source_info --descriptor_set_out=build/api.binpb $(PROTOS)
$(BIN)/python protos/reference.py build/api.binpb > $(1)
$(BIN)/python protos/openapi.py build/api.binpb > $(2)
endef

GO_PLUGINS := build/go-bin

$(GO_PLUGINS): clients/go/plugins.txt
	mkdir -p $@
	while read -r plugin; do GOBIN="$(CURDIR)/$@" go install "$$plugin"; done < $<
	touch $@

generate-go: setup $(GO_PLUGINS) ## Rewrite the generated Go code
	rm -rf clients/go/sidejudge/v1
	PATH="$(CURDIR)/$(GO_PLUGINS):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --go_out=clients/go --go_opt=paths=source_relative \
		--go-grpc_out=clients/go --go-grpc_opt=paths=source_relative $(PROTOS)

test-go: setup ## The Go client against a real sidecar; needs Go 1.24 or newer
	$(BIN)/python -m pytest tests/clients/test_go.py $(PYTEST_ARGS)

check-generated: setup ## Fail if the generated code is not what protos/ gives
	rm -rf build/generated
	$(call protoc,build/generated)
	$(call reference,build/generated/api.md,build/generated/openapi.json)
	diff build/generated/api.md docs/api.md && diff build/generated/openapi.json docs/openapi.json || { echo "the reference drifted: run 'make generate' and commit"; exit 1; }
	diff -r -x __pycache__ build/generated/sidejudge/v1 $(GEN) || { echo "generated code drifted: run 'make generate' and commit"; exit 1; }

lint: setup ## buf, ruff, mypy, import-linter
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Put code and protos in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format -w --path protos/sidejudge

pytest: setup ## Tests alone; PYTEST_ARGS adds arguments
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(PYTEST_ARGS)

test: check-generated lint pytest ## All checks: what CI runs

test-duckdb-1.5: setup ## Storage tests on the older DuckDB line that files must stay readable for
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target build/duckdb-1.5 --no-deps duckdb==1.5.5
	PYTHONPATH=build/duckdb-1.5 $(BIN)/python -m pytest tests/storage $(PYTEST_ARGS)

demo: setup ## The whole loop with the embedded model: judge, correct, optimise, deploy
	OMP_WAIT_POLICY=passive $(BIN)/sidejudge demo $(DEMO_ARGS)

bench: setup ## Speed and memory against bare operations
	$(BIN)/python -m bench.speed $(BENCH_ARGS)

bench-analytics: setup ## Figures over a year and an experiment on 10 million evaluations, beside SQLite; BENCH_ARGS="--rows N"
	$(BIN)/python -m bench.analytics $(BENCH_ARGS)

bench-experiments: setup ## What experiments add to an evaluation
	$(BIN)/python -m bench.experiments $(BENCH_ARGS)

bench-trust: setup ## What calibration and selection add to an evaluation
	$(BIN)/python -m bench.trust $(BENCH_ARGS)

bench-judges: setup ## Optimizers on labelled data beside plain DSPy; BENCH_ARGS="--data DIRECTORY"
	OMP_WAIT_POLICY=passive $(BIN)/python -m bench.judge_optimizers $(BENCH_ARGS)

bench-optimizers: setup ## Calls, time and results of a search beside plain MIPROv2
	$(BIN)/python -m bench.optimizers $(BENCH_ARGS)

audit: setup ## Known vulnerabilities in the locked dependencies
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements/server.txt

clean: ## Remove what make made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.PHONY: help setup lock generate generate-go test-go check-generated lint format pytest test test-duckdb-1.5 demo bench bench-analytics bench-experiments bench-trust bench-judges bench-optimizers audit clean
