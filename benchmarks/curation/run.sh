#!/usr/bin/env bash
# Measures tokenmill's curation beside datatrove 0.10.1 on the same 100 MB, one after the other.
# The peer's environment (Python 3.11): pip install "datatrove[io]==0.10.1" orjson spacy nltk \
#   "xxhash<4" tokenizers regex fasteners ftfy tldextract
#   usage: benchmarks/curation/run.sh PEER_PYTHON WORK_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
peer=$1
work=$2
ours=(.venv/bin/python benchmarks/curation/ours.py)
export PYTHONPATH=. TF_CPP_MIN_LOG_LEVEL=3
mkdir -p "$work"/{speed,planted}
.venv/bin/python benchmarks/curation/corpus.py speed "$work/speed/in.jsonl" --megabytes 100
.venv/bin/python benchmarks/curation/corpus.py planted "$work/planted/in.jsonl" \
  --truth "$work/truth.json"
for what in filters near all; do
  rm -rf "$work/ours" && mkdir "$work/ours"
  echo "tokenmill $what: $("${ours[@]}" "$work/speed/in.jsonl" "$work/ours" $what "$work/ours/kept" 2>>"$work/log")"
done
# Two workers beside one on the same 16 files.
mv "$work/ours/examples" "$work/examples"
for workers in 1 2; do
  rm -rf "$work/two" && mkdir "$work/two"
  echo "$workers worker(s): $("${ours[@]}" "$work/examples" "$work/two" all "$work/two/kept" $workers 2>>"$work/log")"
done
echo "datatrove, each stage on the whole input:" \
  "$("$peer" benchmarks/curation/peer_datatrove.py "$work/speed" "$work/peer" all "$work/kept-peer" 2>>"$work/log")"
echo "datatrove, MinHash on what its filters left:" \
  "$("$peer" benchmarks/curation/peer_datatrove.py "$work/peer/filtered" "$work/peer2" minhash "$work/kept-peer2" 2>>"$work/log")"
rm -rf "$work/ours" && mkdir "$work/ours"
"${ours[@]}" "$work/planted/in.jsonl" "$work/ours" near "$work/ours/kept" 2>>"$work/log"
"$peer" benchmarks/curation/peer_datatrove.py "$work/planted" "$work/peer3" minhash "$work/kept-planted" 2>>"$work/log"
.venv/bin/python benchmarks/curation/quality.py "$work/truth.json" "$work/planted/in.jsonl" \
  tokenmill="$work/ours/kept" datatrove="$work/kept-planted"
# Peak memory at 100 MB and ten times as much; what looks up by piece; what each rule drops.
.venv/bin/python benchmarks/curation/corpus.py speed "$work/large.jsonl" --megabytes 1000
.venv/bin/python benchmarks/curation/memory.py "$work/memory" "$work/speed/in.jsonl" "$work/large.jsonl" 2>>"$work/log"
.venv/bin/python benchmarks/curation/pieces.py 2>>"$work/log"
.venv/bin/python benchmarks/curation/rules.py 2>>"$work/log" >"$work/rules.md"
