#!/usr/bin/env bash
# Cached generation, latency and overload of a pushed model on this machine's cores.
# benchmarks/serving/run.sh MODEL_DIR [OUTPUT_DIR]
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD" TF_CPP_MIN_LOG_LEVEL=3 PYTHONWARNINGS=ignore
python=${PYTHON:-.venv/bin/python}
model_dir=$1 out=${2:-$(mktemp -d)}
mkdir -p "$out"
echo "== cached generation against computing anew"
"$python" benchmarks/serving/cached_generation.py 64 256
echo "== load"
"$python" -m pipeline.cli serve "$model_dir" --rest-port 0 --grpc-port 0 > "$out/serve.txt" 2> "$out/serve.jsonl" &
server=$!
trap 'kill $server' EXIT
until grep -q REST "$out/serve.txt"; do sleep 0.5; kill -0 $server || exit 1; done
url=$(sed -n 's|REST: \(http://[^/]*\)/.*|\1|p' "$out/serve.txt")
load() { echo "-- $*"; "$python" -m pipeline.cli loadtest "$url" --output "$out/$1" "${@:2}"; echo "exit $?"; }
load idle --rate 5 --seconds 10 --p50-ms 10
load busy --rate 60 --seconds 8
load overload --rate 300 --seconds 8
load generate --rate 2 --seconds 8 --signature generate --text "Returns the" --option max_new_tokens=32
