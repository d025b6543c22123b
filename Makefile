# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CODE := sluice services infra
# What the tests drive besides the platform's own parts.
TEST_PACKAGES := rabbitmq-server tesseract-ocr tesseract-ocr-rus nginx-light gettext-base
# `make swarm-test` needs an engine, and something to make base images of.
SWARM_PACKAGES := docker.io debootstrap

##@ Run it

.PHONY: up
up: $(INSTALLED) ## Set everything up and start the platform; prints its URL and, once, the administrator's password
	@$(BIN)/python -m infra.embedded up

.PHONY: demo
demo: up ## Start the platform, upload the samples, ask questions in English and Russian
	@$(BIN)/python -m infra.embedded.demo

.PHONY: down
down: ## Stop the platform; its data is kept
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m infra.embedded down; fi

.PHONY: status
status: $(INSTALLED) ## Show every part with its state, memory and address
	@$(BIN)/python -m infra.embedded status

##@ Change it

.PHONY: setup
setup: $(INSTALLED) ## Make .venv and install everything in it, at the versions of constraints.txt

.PHONY: test
test: $(INSTALLED) lint ## Run lint, types and every test, on ports and folders of its own
	@$(BIN)/python -m infra.embedded.system_packages $(TEST_PACKAGES)
	@SLUICE_HOME=.sluice-test $(BIN)/python -m pytest

.PHONY: lint
lint: $(INSTALLED) ## Check style, types, dependency direction and pinned versions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(CODE)
	@$(BIN)/lint-imports
	@$(BIN)/python -m infra.embedded.lock --check

.PHONY: format
format: $(INSTALLED) ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

.PHONY: lock
lock: $(INSTALLED) ## Write the versions that are installed in .venv to constraints.txt
	@$(BIN)/python -m infra.embedded.lock
	@touch $(INSTALLED)

.PHONY: swarm-test
swarm-test: $(INSTALLED) ## Build the images, deploy stack.yml on a Docker engine of its own, break it, print figures (root)
	@$(BIN)/python -m infra.embedded.system_packages $(SWARM_PACKAGES)
	@$(BIN)/python -m infra.swarm.rehearsal

# ci: minutes; long: hours, with every time and rate judged.
PROFILE ?= long

.PHONY: chaos
chaos: $(INSTALLED) ## Break a platform of its own on purpose and look what is left; PROFILE=ci is quick, X="X1 SM" runs some
	@$(BIN)/python -m infra.embedded.system_packages rabbitmq-server
	@$(BIN)/python -m tests.chaos --profile $(PROFILE) $(X)

.PHONY: bench
bench: $(INSTALLED) ## Run every benchmark; results go to benchmarks/results
	@$(BIN)/python -m benchmarks

##@ Clean up

.PHONY: clean
clean: ## Remove caches, build results and what tests left; keeps .venv and the platform's data
	@if [ -x $(BIN)/python ]; then for home in .sluice-test .sluice-chaos; do SLUICE_HOME=$$home $(BIN)/python -m infra.embedded down; done; fi
	@rm -rf .sluice-test .sluice-chaos build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: purge
purge: down ## Stop the platform and DELETE its data, users and documents included
	@rm -rf .sluice

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

$(INSTALLED): pyproject.toml constraints.txt
	@infra/embedded/make_venv.sh $(PYTHON)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m sluice.embedding_models.built_in
	@touch $@
