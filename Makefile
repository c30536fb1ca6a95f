# Two commands set everything up on a fresh Debian or Ubuntu with Rust and Node: `make demo` and `make test`.
.PHONY: demo test lint fmt replay bench graph packages

# What demo and test are built with, and what measures: figures of unoptimised programs say nothing.
PROFILE ?= dev
MEASURED ?= release
folder = target/$(if $(filter dev,$(1)),debug,$(1))
ARGS ?=

# Builds, starts, seeds a shop, buys through the public API, prints a clean audit, and goes on serving.
demo: packages
	cargo build --locked --profile $(PROFILE) --package holdfast
	$(call folder,$(PROFILE))/holdfast demo $(ARGS)

# Everything: format, lints, and every test. The binary first, for whole-purchase tests start it.
test: packages lint
	cargo build --locked --workspace --bins
	cargo test --locked --workspace

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings

fmt:
	cargo fmt --all

# Lives a shop's invoices through the public API: make replay FILE=invoices.csv.gz
replay: packages
	cargo build --locked --profile $(MEASURED) --package holdfast --package holdfast-e2e --bins --examples
	$(call folder,$(MEASURED))/examples/replay $(FILE)

# Measures the ledger's ways side by side; writes docs/PERFORMANCE.md. Release profile.
bench: packages
	cargo build --locked --release --package holdfast --package holdfast-e2e --examples
	target/release/examples/bench $(ARGS)

# Draws the graphs of calls and messages into ARCHITECTURE.md.
graph:
	HOLDFAST_DRAW=1 cargo test --locked --package holdfast-tidy --test rules drawing

packages:
	@scripts/system-packages
