#!/bin/sh
# Resolves all locks anew: `make lock`. What to run before trusting them: CONTRIBUTING.md, Update.
#
# uv keeps the pins that a lock has as long as pyproject.toml allows them, so this changes what has
# to change only; `make lock ARGS=--upgrade` raises everything (`ARGS="--upgrade-package rich"` one).
set -eu
unset CDPATH UV_SYSTEM_PYTHON UV_PYTHON
cd "$(dirname "$0")/.."
if uv --version >/dev/null 2>&1; then uv=uv; else uv=.uv/bin/uv; fi

# lock PYTHON OUT [OPTION..] IN..: every entry with the hashes of all its files, no index's address.
lock() {
  python=$1 out=$2
  shift 2
  echo "lock: $out" >&2
  # $upgrade is a list of options.
  # shellcheck disable=SC2086
  "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --python-version "$python" \
    --custom-compile-command "make lock" $upgrade "$@" -o "$out"
}
upgrade="$*"

# The modern stack, for Python 3.12 and newer, and the old one, for systems with a glibc under 2.39.
old="--python-platform x86_64-manylinux_2_28"
lock 3.12 requirements.lock --universal --extra dev tools/build.in pyproject.toml
# shellcheck disable=SC2086
lock 3.10 requirements-py310.lock $old --extra dev tools/build.in pyproject.toml

# What a GPU needs beside a lock: TensorFlow's own choice of NVIDIA's libraries.
gpu() { sed -n 's/^tensorflow==\([^ ]*\) .*/tensorflow[and-cuda]==\1/p' "$1"; }
gpu requirements.lock | lock 3.12 requirements-gpu.lock \
  --python-platform x86_64-manylinux_2_39 --no-annotate -c requirements.lock -
# shellcheck disable=SC2086
gpu requirements-py310.lock | lock 3.10 requirements-py310-gpu.lock \
  $old --no-annotate -c requirements-py310.lock -

# The tools' own environments, for whichever Python is found.
echo uv | lock 3.8 tools/uv.lock --universal -
lock 3.10 tools/audit.lock --universal tools/audit.in
lock 3.10 tools/docs.lock --universal tools/docs.in

# Clients that the tests of the gateway run, each in an environment of its own.
for client in openai schemathesis; do
  echo "$client" | lock 3.10 "tests/serving/clients/$client.lock" --universal -
done
# Flink's and Spark's own jars, as PyPI has them.
for engine in flink spark; do
  lock 3.10 "tools/engines/$engine.lock" --no-deps "tools/engines/$engine.in"
done
# lm-evaluation-harness has an environment of its own, which `tokenmill benchmark` makes.
lock 3.10 serving/benchmark/lm_eval.lock --universal serving/benchmark/lm_eval.in
