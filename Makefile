# `make demo` runs the whole path on real text; `make test` all checks. Each does its own set-up.

.PHONY: demo test build libtorch clean

demo: build
	cargo xtask demo

build: libtorch
	cargo build --release --workspace --locked

test: libtorch
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo test --workspace --locked

libtorch:
	python3 tools/bootstrap.py

clean:
	cargo clean
	rm -rf demo .libtorch
