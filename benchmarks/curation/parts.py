"""CPU time of what looks documents up by part, by the number of staged parts.

    python benchmarks/curation/parts.py [PARTS...]

Parts of 64 documents; a pair of documents at random for each fifth, a tenth of them dropped, in as
many groups as there are parts. If work is in proportion to the documents, four times the parts
take four times the seconds.
"""

import sys
import tempfile
import time

import numpy as np

from components.curate.config import CurateConfig
from components.curate.deduplicate import DroppedGroup, join_dropped, verify
from components.curate.last_pass import count
from tokenmill.records.staging import PartWriter, StagedPart

ROWS = 64
SETTINGS = CurateConfig()


def write_part(directory: str, number: int) -> StagedPart:
    writer = PartWriter(f"{directory}/{number:06d}", "train", 16)
    ids = [b"%d-%d" % (number, i) for i in range(ROWS)]
    texts = [
        b"some words of a text number %d of %d that is here" % (i, number) for i in range(ROWS)
    ]
    sizes = [len(text) for text in texts]
    writer.append(ids, [b"s"] * ROWS, texts, sizes, sizes)
    return writer.close()


def measure(parts: list[StagedPart]) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    documents = len(parts) * ROWS
    pairs = rng.integers(0, documents, (documents // 5, 2))
    started = time.process_time()
    list(verify((0, [pairs[pairs[:, 0] != pairs[:, 1]]]), parts, SETTINGS))
    verified = time.process_time()
    gone = np.array_split(rng.choice(documents, documents // 10, replace=False), len(parts))
    groups = [
        DroppedGroup("contaminated", some, np.ones(len(some)), 0.0, np.full(len(some), -1))
        for some in gone
    ]
    dropped = join_dropped([groups])
    for part in parts:
        list(count(part, parts, dropped))
    return verified - started, time.process_time() - verified


def main() -> None:
    print("| parts | documents | verify | count |\n| --- | --- | --- | --- |")
    for number in map(int, sys.argv[1:] or (100, 400, 1600)):
        with tempfile.TemporaryDirectory() as directory:
            parts = [write_part(directory, i) for i in range(number)]
            verify_seconds, count_seconds = measure(parts)
        print(
            f"| {number:,} | {number * ROWS:,} | {verify_seconds:.2f} s | {count_seconds:.2f} s |"
        )


if __name__ == "__main__":
    main()
