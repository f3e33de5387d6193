#!/usr/bin/env bash
# Two workers on two cores against one process on one core: tokens/s of the same job.
#   PYTHONPATH=$PWD benchmarks/training/resume_workers.sh PYTHON
set -euo pipefail
python=$1
out=$(mktemp -d)
here=$(dirname "$0")
export TF_CPP_MIN_LOG_LEVEL=2
taskset -c 0 "$python" "$here/resume_workers.py" "$out/rows" default > "$out/one"
export CLUSTER='"cluster": {"worker": ["127.0.0.1:23451", "127.0.0.1:23452"]}'
TF_CONFIG="{$CLUSTER, \"task\": {\"type\": \"worker\", \"index\": 1}}" \
  taskset -c 1 "$python" "$here/resume_workers.py" "$out/rows" multi_worker > "$out/two-1" &
TF_CONFIG="{$CLUSTER, \"task\": {\"type\": \"worker\", \"index\": 0}}" \
  taskset -c 0 "$python" "$here/resume_workers.py" "$out/rows" multi_worker > "$out/two-0"
wait
echo "tokens/s: one process on one core $(tail -1 "$out/one"), two on two $(tail -1 "$out/two-0")"
rm -r "$out"
