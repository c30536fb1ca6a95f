# Two commands set everything up on a fresh Debian or Ubuntu with Rust and Node: `make demo` and `make test`.
.PHONY: demo test lint fmt replay bench graph deny schemathesis fuzz packages

# What programs are built with; what measures takes release, for figures of unoptimised programs say nothing.
PROFILE ?= dev
TARGET = target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
ARGS ?=

# Builds, starts, seeds a shop, buys through the public API, prints a clean audit, and goes on serving.
demo: packages
	cargo build --locked --profile $(PROFILE) --package holdfast
	$(TARGET)/holdfast demo $(ARGS)

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
replay: PROFILE = release
replay: packages
	cargo build --locked --profile $(PROFILE) --package holdfast --package holdfast-e2e --bins --examples
	$(TARGET)/examples/replay $(FILE)

# Measures the ledger beside other ways, whole checkouts, and a catalog of 100,000 products; writes docs/PERFORMANCE.md. ARGS=--smoke only runs everything
# for a moment and writes nothing, quickest with PROFILE=dev.
bench: PROFILE = release
bench: packages
	cargo build --locked --profile $(PROFILE) --package holdfast --package holdfast-inventory --package holdfast-e2e --bins --examples
	$(TARGET)/examples/ledger_bench --write docs/PERFORMANCE.md --noted "$(NOTED)" $(ARGS)
	$(TARGET)/examples/checkout_bench --write docs/PERFORMANCE.md --noted "$(NOTED)" $(ARGS)
	$(TARGET)/examples/catalog_bench --write docs/PERFORMANCE.md --noted "$(NOTED)" $(ARGS)

NOTED = make bench on $(shell date -u +%F), of $(shell git describe --always --dirty)

# Draws the graphs of calls and messages into ARCHITECTURE.md.
graph:
	HOLDFAST_DRAW=1 cargo test --locked --package holdfast-tidy --test rules drawing

# What may be linked, from where, under which licence (deny.toml). Needs cargo-deny 0.20: `cargo install cargo-deny --locked`,
# some minutes, which is why it is not part of `make test`. `make deny CHECKS=advisories` reads the advisories, from GitHub.
CHECKS ?= bans licenses sources
deny:
	cargo deny --locked check $(CHECKS)

# Asks a server all that its description allows and much that it does not (scripts/schemathesis). Needs Python and PyPI, which
# is why it is not part of `make test`; CI runs it.
schemathesis: packages
	cargo build --locked --package holdfast
	scripts/schemathesis target/debug/holdfast

# Feeds what we read from outside with whatever a fuzzer thinks of, FUZZ_SECS each. Needs a nightly compiler and cargo-fuzz
# (`cargo install cargo-fuzz --locked`); what is worth keeping goes to fuzz/corpus, which `make test` replays.
FUZZ_SECS ?= 60
FUZZED = product_file cursor authorization webhook_url
fuzz: packages
	cp Cargo.lock fuzz/Cargo.lock
	for target in $(FUZZED); do cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECS) || exit 1; done

packages:
	@scripts/system-packages
