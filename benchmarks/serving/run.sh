#!/usr/bin/env bash
# Cached generation, latency, the sustained load, twice that, and version swaps of a pushed model.
# benchmarks/serving/run.sh MODEL_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD" TF_CPP_MIN_LOG_LEVEL=3 PYTHONWARNINGS=ignore
python=${PYTHON:-.venv/bin/python}
model_dir=$1
version=$(find "$model_dir" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort -n | tail -1)
echo "== cached generation against computing anew"
"$python" benchmarks/serving/cached_generation.py 64 256
echo "== load"
"$python" benchmarks/serving/load.py "$model_dir"
echo "== swaps"
"$python" benchmarks/serving/swaps.py "$model_dir/$version" 20
