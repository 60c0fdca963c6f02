# The commands of the repository. tests/setup.sh installs what is needed besides Rust, which is only needed for the tests.

.PHONY: dev test test-docs test-code test-faults bench bench-growth bench-instructions contract test-peers fuzz lint format openapi pictures reference setup

# A debug build: it takes half the time of a release build, and dev is ready in well under a second either way.
dev:
	cargo run --locked -- dev

setup:
	tests/setup.sh

# Each test binary is one process with threads, not a process per test: tests/it/harness/mod.rs says why. Most tests wait for other
# processes, so more of them run at a time than there are cores. The integration tests come last, so their summary ends the output.
RUST_TEST_THREADS ?= 7
export RUST_TEST_THREADS

test: test-docs test-code

test-docs: setup
	cargo test --locked --workspace --doc

test-code: setup
	cargo build --locked --workspace --example demo-worker
	cargo test --locked --workspace --no-fail-fast --lib --bins --tests

# Only the tests that break things on purpose: a minute and a half. The long form is `cargo run --example chaos -- --minutes 10`.
test-faults: setup
	cargo build --locked --workspace --example demo-worker
	cargo test --locked --workspace --no-fail-fast --test it -- faults chaos

# Celery's own integration suite against redis-server with a gateway attached, and against dev's server: an hour. CELERY is a checkout of
# Celery, ARGS is passed to pytest: `make test-peers CELERY=../celery ARGS="-k chord"`.
test-peers: setup .venv/peers/requirements
	cargo build --locked --bin taskgate
	tests/peers/run.py $(CELERY) $(ARGS)

.venv/peers/requirements: tests/peers/requirements.txt
	rm -rf .venv/peers && python3 -m venv .venv/peers
	.venv/peers/bin/pip install --quiet --disable-pip-version-check -r $<
	cp $< $@

# Measures taskgate and what it replaces in one run. The peers' Python environment is created once. The benches `growth`, which needs
# much disk, and `instructions`, which needs valgrind, have their own commands.
bench: setup .venv/bench/requirements
	cargo build --locked --release --example demo-worker
	cargo bench --locked --bench worker
	cargo bench --locked --bench gateway

.venv/bench/requirements: benches/peer/requirements.txt
	rm -rf .venv/bench && python3 -m venv .venv/bench
	.venv/bench/bin/pip install --quiet --disable-pip-version-check -r $<
	cp $< $@

# Measures ledgers of 100,000, a million and ten million finished tasks: 30 GB of disk and half an hour.
bench-growth: setup
	cargo bench --locked --bench growth -- 100000 1000000 10000000

bench-instructions:
	command -v valgrind >/dev/null || apt-get install -y -q --no-install-recommends valgrind
	cargo bench --locked --bench instructions

# Tests the HTTP contract with schemathesis, all phases and 200 examples for each operation: half an hour. `make test` has a short form.
contract: setup
	TASKGATE_CONTRACT_EXAMPLES=$${TASKGATE_CONTRACT_EXAMPLES:-200} cargo test --locked --test it -- edge_limits::contract --nocapture

# Fuzzes each decoder for ten minutes: see fuzz/README.md.
fuzz:
	fuzz/run

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

format:
	cargo fmt --all

# Generates the static part of the contract, and the TypeScript client's types from it. CI refuses stale files.
openapi:
	mkdir -p openapi
	cargo run --locked --quiet -- openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json
	PATH="$$PWD/.venv/node/bin:$$PATH" .venv/typescript/node_modules/.bin/openapi-typescript openapi/openapi.json --output clients/typescript/src/schema.ts

# Takes pictures of the dashboard in the tests' browser, for the README and the book.
pictures:
	cargo test --locked --workspace --test it -- dashboard::every_page dashboard::actions::the_keyboard
	mkdir -p docs/images
	cp target/screenshots/tasks-light.png docs/images/tasks.png
	cp target/screenshots/canvas-light.png docs/images/task.png
	cp target/screenshots/phone-tasks.png docs/images/phone.png

# Generates the reference pages from the code (every key, metric and problem) and the index of decisions. The tests refuse stale pages.
reference:
	.ci/reference.py
