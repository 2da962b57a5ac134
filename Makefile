# One-line verbs; `make help` lists them. Scripts are in .ci/.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup cuda build demo demo-chat test contract e2e-distributed chart-test cluster-test telemetry-test images lint fmt parity bench bench-learn bench-train \
  bench-ingest up down deps-up deps-down up-distributed down-distributed clean

CACHE := $(or $(TIDEMILL_CACHE),$(HOME)/.cache/tidemill)
TARGET := $(or $(CARGO_TARGET_DIR),target)
BUF := $(CACHE)/buf/node_modules/.bin/buf

help: ## List every verb
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: ## Install what is missing (system packages, libtorch, buf, protos); idempotent
	@.ci/setup

cuda: setup ## Install CUDA's compiler and libraries (3 GB), and compile our kernels for GPUs; needs no GPU
	@.ci/cuda

build: setup ## Build everything; always the whole workspace, so that dependencies are compiled once
	cargo build --workspace

demo: setup ## Run the whole loop on real text, and print a report (target/demo/report.json)
	@.ci/demo

demo-chat: setup ## Fine-tune a real chat model on real rows: LoRA, then DPO (target/demo-chat/report.json)
	@.ci/demo-chat

test: setup ## Run every test: unit, contract on real servers, user stories, kill -9, clients in Python
	@CARGO_TEST_FLAGS="$(CARGO_TEST_FLAGS)" .ci/test

contract: setup deps-up ## Run every port's contract on every adapter; what is skipped is named
	@.ci/contract

e2e-distributed: build deps-up ## Run the user stories over separate processes and real servers, and a rolling restart under load
	@.ci/e2e-distributed

chart-test: setup ## Check the Helm chart in every shape, k8s/, and the Dockerfile
	@tests/chart/run

cluster-test: build ## On a real API server: the launcher's contract, install, upgrade, rollback and uninstall of the chart, workers as Jobs
	@tests/cluster/run

telemetry-test: build deps-up ## Metrics by promtool, alert rules by their tests, dashboards, traces at a real receiver
	@tests/telemetry/run

images: build ## Build the images from the programs of this machine, and drive the whole loop through them in containers
	@tests/images/run --programs $(TARGET)/debug

lint: setup ## Check formatting, clippy, protos
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BUF) lint
	$(BUF) format proto -d --exit-code

fmt: setup ## Format sources and protos
	cargo fmt --all
	$(BUF) format proto -w

parity: build ## Compare models with transformers (tiny ones of every family, real weights), and training with TRL and PEFT
	@tests/parity/run
	@tests/parity/methods

bench: bench-learn bench-train bench-ingest ## Run every bench (results in target/bench/*.json)

bench-learn: setup ## Train nanoGPT's CPU recipe, beside PyTorch
	@tests/bench/learn

bench-train: build ## Time training steps beside PyTorch, transformers and peft
	@tests/bench/train

bench-ingest: setup deps-up ## Ingest a Kafka topic, beside a plain client that only counts
	@.ci/deps run tests/bench/ingest

up: build ## Start a server on this machine, in the background
	@$(TARGET)/debug/tidemill up --detach

down: build ## Stop it
	@$(TARGET)/debug/tidemill down

deps-up: setup ## Start real servers on loopback: Kafka, PostgreSQL, Redis, S3
	@.ci/deps up

deps-down: ## Stop them and forget what they hold
	@.ci/deps down

up-distributed: build deps-up ## Start two replicas of every service as separate processes over those servers
	@.ci/distributed up

down-distributed: ## Stop those processes
	@.ci/distributed down

clean: ## Remove what was built and what the demo left; downloads in the cache stay
	cargo clean
	rm -rf target .setup
