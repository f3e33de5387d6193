"""Recall and precision on the planted corpus: which planted copies did a system remove?

    python benchmarks/curation/quality.py TRUTH.json CORPUS.jsonl NAME=KEPT_IDS_PREFIX ...

A planted pair counts as found if one of the two documents is gone. It should be found if its exact
Jaccard similarity of word 5-grams is at least the target; precision is over removed documents, of
which each should have a document that similar.
"""

import glob
import json
import sys

TARGET = 0.8


def grams(text: str) -> set:
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def similarity(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def main() -> None:
    truth_path, corpus_path, *systems = sys.argv[1:]
    with open(truth_path, encoding="utf-8") as source:
        truth = json.load(source)
    with open(corpus_path, encoding="utf-8") as lines:
        sets = {d["id"]: grams(d["text"]) for d in map(json.loads, lines)}
    kept = {}
    for system in systems:
        name, prefix = system.split("=")
        kept[name] = set()
        for path in glob.glob(f"{glob.escape(prefix)}*"):
            with open(path, encoding="utf-8") as lines:
                kept[name] |= {line.rstrip("\n") for line in lines}
    print(
        f"| planted | mean Jaccard | pairs at {TARGET} or more | "
        + " | ".join(f"{n}: found, of which at {TARGET} or more" for n in kept)
        + " |"
    )
    print("| --- " * (3 + len(kept)) + "|")
    totals = {name: [0, 0, 0] for name in kept}  # found and similar, similar, removed wrongly
    for label, pairs in truth.items():
        ids = [pair.split("\t") for pair in pairs]
        similar = {(a, b): similarity(sets[a], sets[b]) for a, b in ids}
        should = {p for p, s in similar.items() if s >= TARGET}
        cells = []
        for name, ids_kept in kept.items():
            found = {(a, b) for a, b in similar if a not in ids_kept or b not in ids_kept}
            cells.append(f"{len(found)}, {len(found & should)}")
            totals[name][0] += len(found & should)
            totals[name][1] += len(should)
            totals[name][2] += len(found - should)
        mean = sum(similar.values()) / len(similar)
        print(f"| {label} | {mean:.2f} | {len(should)} of {len(similar)} | {' | '.join(cells)} |")
    for name, (found, should, wrong) in totals.items():
        precision = found / (found + wrong) if found + wrong else float("nan")
        print(
            f"\n{name}: recall {found / should:.4f} ({found} of {should}), "
            f"precision {precision:.4f} ({wrong} pairs below {TARGET} removed)"
        )


main()
