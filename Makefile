# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
C_FILES = $(shell git ls-files --cached --others --exclude-standard -- '*.c' '*.h')
PYTEST_FLAGS ?=
SOAK_SECONDS ?= 3600
SOAK_KILLS ?= 10000

.PHONY: help setup run test soak gen fmt lint pins bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## install and build everything (root; a second run takes seconds)
	@deploy/setup/all.sh

run: setup ## set up, then serve examples/hello.yaml on port 8080 until Ctrl-C
	@exec $(BIN)/aetherctl -c examples/hello.yaml up --foreground

test: setup ## set up, then run every test: unit, bpf, functional, style
	@deploy/setup/test_packages.sh
	@$(BIN)/python -m pytest $(PYTEST_FLAGS) tests

soak: setup ## kill either side of a channel SOAK_KILLS times; then call, evict, redeploy and kill for SOAK_SECONDS (an hour)
	@PYTHONPATH=tests $(BIN)/python -m soak.rings --kills $(SOAK_KILLS)
	@PYTHONPATH=tests $(BIN)/python -m soak --seconds $(SOAK_SECONDS)

gen: ## regenerate protos/gen and protos/api.txtpb with the pinned generator
	@$(BIN)/python protos/generate.py

fmt: ## format all code in place
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/buf format -w
	@$(if $(strip $(C_FILES)),$(BIN)/clang-format -i $(C_FILES))

lint: ## all static checks, changing nothing
	@deploy/lint.sh

pins: ## resolve the dependencies anew and write requirements.txt
	@$(BIN)/uv lock --upgrade --python /usr/bin/python3
	@$(BIN)/uv export --frozen --all-packages --all-groups --no-emit-workspace --no-header --quiet -o requirements.txt

bench: setup ## measure the promises of SPECIFICATION.md (bench/)
	@deploy/setup/test_packages.sh
	@deploy/setup/bench_packages.sh
	@$(BIN)/python -m bench

clean: ## remove what was built (.venv and .prefix too)
	@rm -rf .venv .prefix build bpf/build services/snapshotter/init/build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
