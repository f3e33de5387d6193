# Two commands do everything on a fresh machine: `make run` and `make test`.
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help run test lint test-core test-slow test-modern test-py310 check-image audit setup lock format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup:  ## make .venv with the stack that this machine can have (TOKENMILL_STACK=modern|py310 forces one)
	@tools/setup.sh

run: setup  ## run the demo pipeline on the embedded corpus (ARGS="--set train.epochs=0.5")
	@$(BIN)/tokenmill run $(ARGS)

test: setup lint  ## lint, types and all tests but the slow ones
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: setup  ## the tests that take minutes each
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-core: setup lint  ## lint, types, the tests where a stack shows most, and a run of 20 steps
	@$(BIN)/python -m pytest -m "core and not slow" $(ARGS)
	@$(BIN)/tokenmill run --output-dir build/core-run --set train.max_steps=20 --set evaluate.beat_baseline=false

test-modern:  ## make test and a run of 20 steps on TensorFlow 2.21, if need be in a Debian 13 root (then as root)
	@python3 tools/test_stack.py modern $(ARGS)

test-py310:  ## the same on TensorFlow 2.16
	@python3 tools/test_stack.py py310 $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup  ## let ruff lay out and fix the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check-image: setup  ## carry out the Dockerfile without Docker (as root; mmdebstrap; some 12 GB)
	@$(BIN)/python tools/check_image.py build/image

audit: setup .uv/audit/installed  ## SBOM (CycloneDX) and known vulnerabilities (needs the package index)
	@$(BIN)/python tools/audit.py .uv/audit build/audit

.uv/audit/installed: tools/audit.lock
	@UV=$$(command -v uv || echo .uv/bin/uv); \
	$$UV venv --quiet --allow-existing --python $(BIN)/python .uv/audit; \
	$$UV pip sync --quiet --require-hashes --python .uv/audit/bin/python tools/audit.lock
	@touch $@

lock: setup  ## resolve requirements.lock anew from pyproject.toml
	@UV=$$(command -v uv || echo .uv/bin/uv); \
	$$UV pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.10 \
	  --extra dev --custom-compile-command "make lock" tools/build.in pyproject.toml -o requirements.lock; \
	echo 'uv' | $$UV pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" - -o tools/uv.lock; \
	$$UV pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.10 \
	  --custom-compile-command "make lock" tools/audit.in -o tools/audit.lock; \
	sed -n 's/^tensorflow==\([^ ]*\) .*/tensorflow[and-cuda]==\1/p' requirements.lock | $$UV pip compile --quiet \
	  --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-annotate --python-version 3.10 \
	  -c requirements.lock --custom-compile-command "make lock" - -o requirements-gpu.lock

clean:  ## remove the environment and the runs
	rm -rf .venv .uv runs
