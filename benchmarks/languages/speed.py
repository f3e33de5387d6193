"""Ingest, filters and deduplication of 30 MB in English, German and Chinese, beside datatrove.

    PYTHONPATH=. python benchmarks/languages/speed.py WORK_DIR PEER_PYTHON [MEGABYTES]

The text is pool.jsonl's (sources.py), repeated with a fifth of the words (characters) of each copy
replaced, so that copies are new documents to every step. tokenmill runs benchmarks/curation/ours.py
(ingest, rules `web`, exact and near copies), datatrove benchmarks/curation/peer_datatrove.py: the
same filters and MinHash with the word tokenizer of the language, each stage on the whole input. One
worker each, one after the other. CPU seconds are those of the processes, imports not counted. Run
it on a machine that does nothing else.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.languages.corpus import Vocabulary, edit_scattered
from benchmarks.languages.sources import read_pool

CODES = {"en": "eng_Latn", "de": "deu_Latn", "zh": "cmn_Hani"}


def speed_corpus(
    language: str, pool: list[dict[str, str]], size: float
) -> Iterator[dict[str, str]]:
    """Yield documents of `size` bytes in all."""
    words = Vocabulary(language, [document["text"] for document in pool[:400]])
    edit = edit_scattered(0.2)
    copy = 0
    while True:
        rng = random.Random(copy)
        for document in pool:
            text = edit(document["text"], words, rng) if copy else document["text"]
            yield {"id": f"{copy}/{document['id']}", "source": document["source"], "text": text}
            size -= len(text.encode())
            if size <= 0:
                return
        copy += 1


def call(*command: str) -> dict:
    """Run a command and return the JSON on the last line of what it prints."""
    environment = {**os.environ, "PYTHONPATH": ".", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    return json.loads(done.stdout.decode().strip().split("\n")[-1])


def main() -> None:
    """Print a table of bytes a CPU second."""
    work, peer = sys.argv[1:3]
    megabytes = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
    pool = read_pool(os.path.join(work, "pool.jsonl"))
    print(
        "| | MB | tokenmill, CPU s | datatrove, CPU s | tokenmill, MB/s | datatrove, MB/s | ratio |"
    )
    print(f"|{' --- |' * 7}")
    for language, code in CODES.items():
        here = os.path.join(work, "speed", language)
        shutil.rmtree(here, ignore_errors=True)
        for name in ("in", "ours", "peer"):
            os.makedirs(os.path.join(here, name))
        path = os.path.join(here, "in", "in.jsonl")
        size = 0
        with open(path, "w", encoding="utf-8") as out:
            for document in speed_corpus(language, pool[language], megabytes * 1e6):
                out.write(json.dumps(document, ensure_ascii=False) + "\n")
                size += len(document["text"].encode())
        steps = call(
            sys.executable, "benchmarks/curation/ours.py",
            path, f"{here}/ours", "all", f"{here}/kept-ours",
        )  # fmt: skip
        stages = call(
            peer, "benchmarks/curation/peer_datatrove.py",
            f"{here}/in", f"{here}/peer", "all", f"{here}/kept-peer", code,
        )  # fmt: skip
        ours = sum(steps[step]["cpu_seconds"] for step in ("ingest", "curate"))
        theirs = sum(stages.values())
        speeds = size / 1e6 / ours, size / 1e6 / theirs
        print(
            f"| {language} | {size / 1e6:.0f} | {ours:.1f} | {theirs:.1f} | {speeds[0]:.2f} "
            f"| {speeds[1]:.3f} | {speeds[0] / speeds[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
