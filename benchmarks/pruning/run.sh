#!/bin/sh
# The demo dense, pruned by half, 2:4 and by four fifths: the same text, steps and seed.
#   benchmarks/pruning/run.sh DIRECTORY
set -eu
directory=$1
run() { # name, then keys
    name=$1
    shift
    tokenmill run --set run.output_dir="$directory/$name" "$@"
}
run dense
run half --set train.prune_sparsity=0.5
run 2-4 --set train.prune_sparsity=0.5 --set train.prune_pattern=2:4
run four-fifths --set train.prune_sparsity=0.8
