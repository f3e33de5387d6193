# Two commands do everything on a fresh machine: `make run` and `make test`.
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help run test lint run-short test-core test-slow test-modern test-py310 engines check-image audit docs setup lock format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup:  ## make .venv with the stack that this machine can have (TOKENMILL_STACK=modern|py310 forces one)
	@tools/setup.sh

run: setup  ## run the demo pipeline on the embedded corpus (ARGS="--set train.epochs=0.5")
	@$(BIN)/tokenmill run $(ARGS)

run-short: setup  ## the demo with 20 steps, pushed whatever it is worth
	@$(BIN)/tokenmill run --output-dir build/short-run --set train.max_steps=20 \
	  --set evaluate.max_bits_per_byte=8 --set evaluate.beat_baseline=false

test: setup lint  ## lint, types and all tests but the slow ones
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: setup  ## the tests that take minutes each
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-core: setup lint run-short  ## lint, types, a run of 20 steps, and the tests where a stack shows most
	@$(BIN)/python -m pytest -m "core and not slow" --durations=20 $(ARGS)

engines: setup  ## the pipeline on Flink, Spark and Prism, fetched and started here (Java, Maven, Go; ARGS="flink")
	@$(BIN)/python -m tools.engines.run $(ARGS)

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

check-image:  ## carry out the Dockerfile without Docker (as root; mmdebstrap; 9 GB, for a GPU 17)
	@python3 tools/check_image.py build/image $(ARGS)

audit: setup .uv/audit/installed  ## SBOM (CycloneDX) and known vulnerabilities, by the index (ARGS=requirements-py310.lock)
	@$(BIN)/python tools/audit.py .uv/audit build/audit $(ARGS)

.uv/audit/installed: tools/audit.lock
	@if uv --version >/dev/null 2>&1; then UV=uv; else UV=.uv/bin/uv; fi; \
	$$UV venv --quiet --allow-existing --python $(BIN)/python .uv/audit; \
	$$UV pip sync --quiet --require-hashes --python .uv/audit/bin/python tools/audit.lock
	@touch $@

docs: setup .uv/docs/installed  ## the site, with search and reference: build/site/index.html
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -W ignore tools/site_pages.py build/site-pages
	@NO_MKDOCS_2_WARNING=1 .uv/docs/bin/mkdocs build --strict

.uv/docs/installed: tools/docs.lock
	@if uv --version >/dev/null 2>&1; then UV=uv; else UV=.uv/bin/uv; fi; \
	$$UV venv --quiet --allow-existing --python $(BIN)/python .uv/docs; \
	$$UV pip sync --quiet --require-hashes --python .uv/docs/bin/python tools/docs.lock
	@touch $@

lock: setup  ## resolve the locks anew, pins kept where they may (ARGS=--upgrade raises all)
	@tools/lock.sh $(ARGS)
	@$(BIN)/python tools/dependencies.py

clean:  ## remove the environment and the runs
	rm -rf .venv .uv runs
