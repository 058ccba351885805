# One command for each thing people do here; `make` alone lists them.
# `setup` is done once and again only when the pinned versions change.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help

# libtorch comes from PyPI's wheel of torch; no Python is needed when the programs run.
TORCH := torch==2.11.0
# What libtorch_cpu.so loads, and NCCL.
RUNTIME := nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 nvidia-nccl-cu13==2.28.9
# Headers only: the NCCL shim compiles with them, on a machine without a GPU too.
HEADERS := 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*'

# All of CUDA where a GPU answers, else the small set that a CPU needs.
WHEELS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
STAMP := .venv/$(WHEELS)-$(subst ==,-,$(TORCH)).stamp
TARGET := $(or $(CARGO_TARGET_DIR),target)
ARGS ?=

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: train
train: setup ## Set up, build, and train two workers on the built-in demo set (ARGS="..." adds flags)
	cargo build --release --locked -p coordinator -p worker
	$(TARGET)/release/coordinator --workers 2 --data demo $(ARGS)

.PHONY: test
test: setup ## Build and run all tests
	if command -v cargo-nextest >/dev/null 2>&1; then \
	    cargo nextest run --locked --workspace; \
	    cargo test --locked --workspace --doc; \
	else \
	    cargo test --locked --workspace; \
	fi

.PHONY: simulate
simulate: ## Simulate a million random schedules of a cluster (SIMULATIONS= sets the number)
	SIMULATIONS=$(or $(SIMULATIONS),1000000) cargo test --release --locked -p coordinator-core --lib \
	    every_schedule -- --nocapture

.PHONY: chaos
chaos: setup ## Kill and stop processes at each point of a run (MINUTES=10 at random; GPU=fake; SEED= repeats)
	cargo build --release --locked -p coordinator -p worker -p integration-tests --bins
	MINUTES="$(MINUTES)" SEED="$(SEED)" ONLY="$(ONLY)" GPU="$(GPU)" $(TARGET)/release/chaos

# PART=N: one part; DRY=1: over the fake GPU; `$(CHECK)/bin/gpu-check --help` lists the others.
CHECK := $(TARGET)/gpu-check

.PHONY: gpu-check
gpu-check: gpu-check-package ## Check everything that needs a GPU (PART=1 to 5; DRY=1 over the fake GPU)
	PART="$(PART)" DRY="$(DRY)" RESULTS="$(or $(RESULTS),$(CHECK))" $(CHECK)/bin/gpu-check

# What the check runs, stripped, in one folder: a machine with a GPU needs no compiler.
.PHONY: gpu-check-package
gpu-check-package: setup
	rm -rf $(CHECK)/bin
	mkdir -p $(CHECK)/bin
	cargo build --release --locked -p coordinator -p worker -p integration-tests --bins
	cargo build --release --locked -p worker --example step
	cd $(TARGET)/release && cp coordinator worker gpu-check libc10d_nccl.so libfakegpu.so libfakenccl.so \
	    examples/step $(abspath $(CHECK))/bin
	for tests in 'worker parity parity' 'c10d it c10d-tests'; do \
	    set -- $$tests; \
	    built=$$(cargo test --release --locked --no-run -p $$1 --test $$2 2>&1 | tee /dev/stderr | \
	        sed -n 's/.*Executable .*(\(.*\))/\1/p'); \
	    cp "$$built" $(CHECK)/bin/$$3; \
	done
	strip --strip-unneeded $(CHECK)/bin/*

# Both come from npm and have no dependencies.
PAGE_TEST := playwright-core@1.65.1 axe-core@4.14.1

.PHONY: page-test
page-test: setup ## Test the coordinator's page in Chromium during a real run
	@for tool in node npm $${CHROMIUM:-chromium}; do \
	    command -v "$$tool" >/dev/null 2>&1 || { \
	        echo "missing: $$tool; on Debian or Ubuntu: apt install nodejs npm chromium" >&2; exit 1; }; \
	done
	cargo build --release --locked -p coordinator -p worker
	npm install --silent --no-audit --no-fund --no-save --prefix $(TARGET)/page-test $(PAGE_TEST)
	PAGE_TEST_MODULES="$(abspath $(TARGET)/page-test)" \
	PAGE_TEST_SCREENSHOTS="$(abspath $(TARGET)/page-test/screenshots)" \
	COORDINATOR="$(abspath $(TARGET)/release/coordinator)" WORKER="$(abspath $(TARGET)/release/worker)" \
	    node tests/page/test.mjs

# PYTHON= names one that has the packages already.
OBSERVABILITY := $(TARGET)/observability/venv

.PHONY: observability
observability: setup ## Test alerts and dashboards with a real Prometheus and real runs (PYTHON=)
	cargo build --release --locked -p coordinator -p worker
ifndef PYTHON
	python3 -m venv $(OBSERVABILITY)
	$(OBSERVABILITY)/bin/pip install --quiet --disable-pip-version-check \
	    -r tests/observability/requirements.txt
endif
	$(or $(PYTHON),$(OBSERVABILITY)/bin/python) tests/observability/main.py --coordinator $(TARGET)/release/coordinator \
	    --worker $(TARGET)/release/worker --drawings $(TARGET)/observability

# Without GRAFANA= the test is itself tested, with a server that has the same API. GRAFANA_TOKEN or
# GRAFANA_USER=NAME:PASSWORD is for a Grafana that admits nobody else; RUN= selects a run.
.PHONY: grafana-test
grafana-test: ## Ask a Grafana for the data of each panel, with screenshots (GRAFANA=URL RUN=)
ifdef GRAFANA
	python3 -B tests/grafana/main.py --url $(GRAFANA) $(if $(RUN),--run $(RUN)) \
	    --screenshots $(TARGET)/grafana-test/screenshots
else
	$(MAKE) --no-print-directory setup
	cargo build --release --locked -p coordinator -p worker -p integration-tests --bin coordinator \
	    --bin worker --bin crowd
	python3 -B tests/grafana/test.py --screenshots $(TARGET)/grafana-test/screenshots \
	    $(foreach program,coordinator worker crowd,--$(program) $(TARGET)/release/$(program))
endif

.PHONY: crowd
crowd: setup ## Measure one coordinator with many simulated workers (WORKERS=64 SECONDS=20)
	cargo build --release --locked -p coordinator -p integration-tests --bin coordinator --bin crowd
	$(TARGET)/release/crowd $(or $(WORKERS),64) $(or $(SECONDS),20)

# An installation of PyTorch apart from .venv; PYTHON= names one that has torch and torchvision.
BENCH := $(TARGET)/bench/venv
BENCH_STAMP := $(BENCH)/installed.stamp
# DATA= LIMIT= SIZE= EPOCHS= GLOBAL_BATCH= WEIGHTS= DEVICE=cuda WORKERS="1 2" VARIANTS= ROUNDS= DRY=1
# RECORD=1 replaces the committed results and the chart; otherwise they go below target/.
BENCH_ARGS = --target $(TARGET)/release \
    --results $(if $(RECORD),tests/bench/results,$(TARGET)/bench/results) \
    --chart $(if $(RECORD),.readme/bench.png,$(TARGET)/bench/bench.png) \
    $(if $(DATA),--data "$(DATA)") $(if $(LIMIT),--limit $(LIMIT)) $(if $(SIZE),--size $(SIZE)) \
    $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(GLOBAL_BATCH),--global-batch $(GLOBAL_BATCH)) \
    $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(DEVICE),--device $(DEVICE)) \
    $(if $(WORKERS),--workers $(WORKERS)) $(if $(VARIANTS),--variants $(VARIANTS)) \
    $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench
bench: ## Compare with PyTorch (DATA= WEIGHTS= DEVICE=cuda; RECORD=1 keeps results; DRY=1 prints commands)
ifdef DRY
	python3 -B tests/bench/test.py
	python3 -B tests/bench/main.py $(BENCH_ARGS) --dry
else
	$(MAKE) --no-print-directory setup $(if $(PYTHON),,$(BENCH_STAMP))
	cargo build --release --locked -p coordinator -p worker -p worker-data --bins --example decode
	$(or $(PYTHON),$(BENCH)/bin/python) -B tests/bench/main.py $(BENCH_ARGS)
endif

$(BENCH_STAMP): tests/bench/requirements.txt
	.venv/bin/python -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

CARGO_DENY := 0.20.2

.PHONY: lint
lint: setup ## Check formatting, lints, documentation, and dependencies (with cargo-deny)
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	@PATH="$(abspath $(TARGET)/tools/bin):$$PATH"; \
	if ! command -v cargo-deny >/dev/null 2>&1; then \
	    echo "SKIPPED: licences, sources and advisories of dependencies: cargo-deny is not installed" \
	        "(make cargo-deny)" >&2; \
	    test -z "$${CI:-}"; \
	elif cargo deny --config .deny.toml fetch db; then \
	    cargo deny --config .deny.toml check; \
	else \
	    cargo deny --config .deny.toml check bans licenses sources; \
	    echo "SKIPPED: advisories: the RustSec database cannot be downloaded here" >&2; \
	fi

.PHONY: cargo-deny
cargo-deny: ## Install cargo-deny below target/, unless it is installed already
	command -v cargo-deny >/dev/null 2>&1 || \
	    cargo install --debug --locked --root $(TARGET)/tools cargo-deny@$(CARGO_DENY)

.PHONY: deploy-check
deploy-check: setup ## Check images, Compose file, manifests, rules, dashboards, and the logic of k8s-test
	cargo build --locked --workspace
	python3 -m venv $(TARGET)/deploy-check
	$(TARGET)/deploy-check/bin/pip install --quiet --disable-pip-version-check \
	    -r deploy/check/requirements.txt
	$(TARGET)/deploy-check/bin/python deploy/check
	PYTHONPATH=deploy/k8s-test $(TARGET)/deploy-check/bin/python -B -m unittest discover \
	    -s deploy/k8s-test/tests

.PHONY: k8s-test
k8s-test: ## Test the manifests on a real cluster (CONTEXT=name REGISTRY=)
	@python3 -B deploy/k8s-test --context "$(CONTEXT)" --registry "$(REGISTRY)" \
	    --results $(TARGET)/k8s-test

DIST := $(TARGET)/dist
DIST_TOOLS := $(TARGET)/dist-tools
# The oldest glibc that the coordinator is to start on is also the oldest that Rust supports.
DIST_TARGET := x86_64-unknown-linux-gnu

.PHONY: dist
dist: setup ## Package the programs for machines without a compiler, into target/dist
	python3 -m venv $(DIST_TOOLS)
	$(DIST_TOOLS)/bin/pip install --quiet --disable-pip-version-check -r deploy/dist/requirements.txt
	PATH="$(abspath $(DIST_TOOLS)/bin):$$PATH" cargo zigbuild --release --locked -p coordinator \
	    --target $(DIST_TARGET).2.17
	cargo build --release --locked -p worker
	PATH="$(abspath $(DIST_TOOLS)/bin):$$PATH" python3 -B deploy/dist/package --out $(DIST) \
	    --coordinator $(TARGET)/$(DIST_TARGET)/release/coordinator --worker $(TARGET)/release/worker \
	    --nccl $(TARGET)/release/libc10d_nccl.so --torch .libtorch

.PHONY: dist-test
dist-test: ## Install target/dist in bare Debian systems and train there (root, debootstrap; ARGS="...")
	deploy/dist/accept $(DIST) $(TARGET)/dist-test $(ARGS)

# ENGINE=docker, or an address as in DOCKER_HOST, takes an engine that runs already; otherwise the test
# starts its own, as root. SPEED="1 2 4": the numbers of workers to compare with the bare host.
ENGINE_TEST := $(TARGET)/engine-test

.PHONY: engine-test
engine-test: setup ## Build the images and run the compose file on a real Docker engine (ENGINE= SPEED=)
	cargo build --release --locked -p coordinator -p worker
	python3 -m venv $(ENGINE_TEST)/venv
	$(ENGINE_TEST)/venv/bin/pip install --quiet --disable-pip-version-check \
	    -r deploy/engine-test/requirements.txt
	$(ENGINE_TEST)/venv/bin/python -B deploy/engine-test --state $(ENGINE_TEST)/state \
	    --programs $(TARGET)/release $(if $(ENGINE),--engine "$(ENGINE)") $(if $(SPEED),--speed $(SPEED))

.PHONY: setup
setup: $(STAMP) .libtorch/lib ## Install the pinned libtorch into .venv (once)

.PHONY: clean
clean: ## Remove what was built; .venv and runs stay
	rm -rf $(TARGET)

# Checked only when there is something to install, so that later commands start at once.
$(STAMP): Makefile
	@fail() { echo "missing: $$1" >&2; exit 1; }; \
	command -v cargo >/dev/null 2>&1 || \
	    fail "cargo; install Rust from https://rustup.rs"; \
	set -- $${CXX:-c++}; \
	command -v "$$1" >/dev/null 2>&1 || \
	    fail "a C++ compiler ($$1); on Debian or Ubuntu: apt install g++"; \
	for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 none; do \
	    test "$$python" != none || \
	        fail "Python 3.10 to 3.14 with venv; on Debian or Ubuntu: apt install python3 python3-venv"; \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
	        >/dev/null 2>&1; then break; fi; \
	done; \
	if ! test -x .venv/bin/pip; then \
	    echo "making .venv with $$python"; \
	    "$$python" -m venv .venv; \
	fi
	if test $(WHEELS) = cuda; then \
	    .venv/bin/pip install --disable-pip-version-check $(TORCH); \
	    .venv/bin/pip install --disable-pip-version-check --no-deps $(HEADERS); \
	else \
	    .venv/bin/pip install --disable-pip-version-check --no-deps $(TORCH) $(RUNTIME) $(HEADERS); \
	fi
	touch $@

# .cargo/config.toml and the binaries' run path lead here. The wheel's folder is older than the
# stamp, so only its absence counts.
.libtorch/lib: | $(STAMP)
	for torch in .venv/lib/python3.*/site-packages/torch; do ln -sfn "$$torch" .libtorch; done
	test -e $@
