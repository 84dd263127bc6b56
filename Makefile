# Two commands for a new machine: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
CARGO := cargo
, := ,

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: libtorch
libtorch: ## put libtorch and cmake into third_party/ (CUDA=1: the full set for a GPU too)
	@CARGO=$(CARGO) CUDA=$(CUDA) tools/setup-libtorch.sh

.PHONY: build
build: libtorch ## build the daemon into target/release
	@$(CARGO) build --release

.PHONY: demo
demo: ## from the clone to a first result: builds, segments a generated study, shows where the result lies
	@CARGO=$(CARGO) tools/demo.sh

.PHONY: test
test: libtorch ## every test, the lints and the format check
	@tools/test.sh

.PHONY: crash-test
crash-test: libtorch ## kill the daemon N times, at random and at every named point, cut its power, break its disk, clock, ledger and PACS, and count (N=1000)
	@STUNETD_KILLS=$(or $(N),1000) $(CARGO) test --quiet --release --test oracle

.PHONY: soak
soak: libtorch ## feed a daemon for MINUTES=30 after a warm-up of 5, and fail where memory, descriptors or the ledger grow
	@STUNETD_SOAK=$(or $(MINUTES),30) $(CARGO) test --quiet --release --test oracle

.PHONY: nightly
nightly: libtorch ## the reliability goals as often as every night asks for, in one table (SOAK=480 minutes, WITHOUT="soak")
	@SOAK=$(SOAK) WITHOUT="$(WITHOUT)" N=$(N) tools/goals.sh nightly

.PHONY: release-goals
release-goals: libtorch ## the same as often as a release asks for: days (SOAK=4320 minutes, WITHOUT="soak fuzz")
	@SOAK=$(SOAK) WITHOUT="$(WITHOUT)" N=$(N) tools/goals.sh release

.PHONY: lint
lint: libtorch ## cargo fmt --check and clippy
	@$(CARGO) fmt --check && $(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	@$(CARGO) clippy --release --all-targets -- -D warnings

.PHONY: bench
bench: build ## what users wait for: make bench STUDY=S,M,L MODEL=demo,S,B (ARGS=--help lists more)
	@$(CARGO) bench --quiet --bench stages -- $(if $(STUDY),--study $(STUDY)) $(if $(MODEL),--model $(MODEL)) $(ARGS)

.PHONY: test-gpu
test-gpu: libtorch ## the tests that need a GPU, where there is one and a libtorch with CUDA (STUNETD_LIBTORCH, or a python's torch)
	@if lib=$$(tools/find-libtorch.sh --cuda); then \
	  STUNETD_LIBTORCH=$$lib STUNETD_GPU=1 $(CARGO) test --release --test it -- gpu:: --test-threads=1 --nocapture; fi

.PHONY: bench-gpu
bench-gpu: build ## the network alone and what users wait for, on a GPU: make bench-gpu STUDY=S,M,L MODEL=demo,S,B,H SIZE=S,B,L,H
	@if lib=$$(tools/find-libtorch.sh --cuda); then export STUNETD_LIBTORCH=$$lib; \
	  $(CARGO) bench --quiet --bench network -- --device cuda:0 --size $(or $(SIZE),S$(,)B$(,)L$(,)H) --precision f32,bf16,f16 && \
	  $(CARGO) bench --quiet --bench stages -- --device cuda:0 --more 4 --study $(or $(STUDY),S$(,)M$(,)L) --model $(or $(MODEL),demo$(,)S$(,)B$(,)H) $(ARGS); fi

.PHONY: gpu-bundle
gpu-bundle: libtorch ## pack target/gpu/stunetd-gpu.tar.gz: tests and benches for a machine with a GPU and nothing else
	@CARGO=$(CARGO) tools/gpu-bundle.sh

.PHONY: deb
# The package says in `stunetd_build_info` what it was built from.
deb: export STUNETD_REVISION := $(shell git describe --always --dirty 2>/dev/null)
deb: build ## the Debian package, tried after it was unpacked elsewhere (XZ=1: smaller, minutes)
	@CARGO=$(CARGO) tools/deb.sh

.PHONY: fuzz
fuzz: libtorch ## run every fuzz target (SECONDS_EACH=600, TARGETS="header seg"); needs cargo-fuzz
	@tools/fuzz.sh $(SECONDS_EACH) $(TARGETS)

.PHONY: docs
docs: libtorch ## write the pages that are made from the code
	@STUNETD_BLESS=1 $(CARGO) test --quiet --release --test it docs::
