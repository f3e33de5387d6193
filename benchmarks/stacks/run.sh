#!/usr/bin/env bash
# Curation, Transform and serving on both stacks, in turns, on one machine; training: speed.py --other.
#   usage: benchmarks/stacks/run.sh "OTHER" WORK_DIR MODEL_DIR
# OTHER is how to start the other stack's Python at this place, with PYTHONPATH set to it: for a
# Debian 13 root that sees it under the same path,
#   "chroot ROOT env --chdir=$PWD PYTHONPATH=$PWD TF_CPP_MIN_LOG_LEVEL=3 /src/.venv/bin/python"
# WORK_DIR and MODEL_DIR (a pushed model's versions) are to be seen by both.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD" TF_CPP_MIN_LOG_LEVEL=3 PYTHONWARNINGS=ignore
read -ra other <<<"$1"
work=$(realpath "$2")
model=$(realpath "$3")
native=("$PWD/.venv/bin/python")
mkdir -p "$work"
"${native[@]}" benchmarks/curation/corpus.py speed "$work/in.jsonl" --megabytes 30 >/dev/null
for round in 1 2; do
  for stack in native other; do
    declare -n python=$stack
    rm -rf "$work/out" && mkdir "$work/out"
    echo "$stack $round curation:"
    "${python[@]}" benchmarks/curation/ours.py "$work/in.jsonl" "$work/out" all "$work/kept" 2>>"$work/log"
    rm -rf "$work/out"
    echo "$stack $round transform:"
    "${python[@]}" benchmarks/tokens/tokenize_speed.py --megabytes 10 --model-type unigram 2>>"$work/log"
  done
done
for stack in native other; do
  declare -n python=$stack
  "${python[@]}" benchmarks/serving/load.py "$model" 2>>"$work/log" | sed "s/^/$stack serving: /"
done
