# What a stranger types. Everything that is needed beyond Rust is installed by tests/setup.sh, and only for the tests.

.PHONY: dev test bench lint format openapi setup

# A debug build: it takes half the time of a release build, and dev is ready in well under a second either way.
dev:
	cargo run --locked -- dev

setup:
	tests/setup.sh

# One process with threads per test binary, not one per test: tests/it/harness/mod.rs says why. Most tests wait for other
# processes, so more of them run than there are cores. The integration tests come last and close the output.
test: setup
	cargo build --locked --example demo-worker
	cargo test --locked --doc
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} cargo test --locked --no-fail-fast --lib --bins --tests

# taskgate beside FastAPI + Celery, in one run; the peer's Python environment is made once.
bench: setup
	test -x .venv/bench/bin/uvicorn || { python3 -m venv .venv/bench && .venv/bench/bin/pip install --quiet -r benches/peer/requirements.txt; }
	cargo build --locked --release --example demo-worker
	cargo bench --locked --bench worker
	cargo bench --locked --bench gateway

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

format:
	cargo fmt

# The static part of the contract; .ci/run refuses a stale one.
openapi:
	mkdir -p openapi
	cargo run --locked --quiet -- openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json
