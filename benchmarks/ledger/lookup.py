"""Time to build the index of documents and to look one up.

Usage: python benchmarks/ledger/lookup.py [DOCUMENTS]   (default 1,000,000)
"""

import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time

import tensorflow as tf  # noqa: F401  (its memory is not the index's)

from tokenmill.provenance.document_index import DocumentIndex, write_shards

SHARDS = 64


def shards(documents: int):
    for shard in range(SHARDS):
        yield (
            (name, json.dumps({"doc_id": name.decode(), "status": "kept", "split": "train",
                               "source": "bench", "byte_count": 3000}).encode() + b"\n")
            for name in (f"source/{shard:02d}/document-{i:08d}".encode()
                         for i in range(documents // SHARDS))
        )  # fmt: skip


def main() -> None:
    documents = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        written = write_shards(directory, shards(documents))
        built = time.perf_counter() - started
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        size = sum(e.stat().st_size for e in os.scandir(directory)) / 1e6
        print(f"build: {written:,} documents in {built:.1f} s, {grown:.0f} MiB more memory, "
              f"{size:.0f} MB on disk")  # fmt: skip
        random.seed(1)
        names = [f"source/{random.randrange(SHARDS):02d}/document-"
                 f"{random.randrange(documents // SHARDS):08d}" for _ in range(1000)]  # fmt: skip
        started = time.perf_counter()
        index = DocumentIndex(directory)
        print(f"open: {(time.perf_counter() - started) * 1e3:.2f} ms")
        times = []
        for name in names:
            started = time.perf_counter()
            assert len(index.find(name)) == 1
            times.append(time.perf_counter() - started)
        show("find", times)
        times = []
        for name in names[:100]:
            started = time.perf_counter()
            assert index.nearest(name + "x")
            times.append(time.perf_counter() - started)
        show("nearest of an unknown id", times)


def show(what: str, times: list[float]) -> None:
    ordered = sorted(times)
    print(f"{what}: median {statistics.median(times) * 1e3:.3f} ms, 99th percentile "
          f"{ordered[int(0.99 * len(ordered))] * 1e3:.3f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
