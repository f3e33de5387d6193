"""MinHash near-deduplication from 1e6 to 1e10 documents: shuffle, memory, CPU and cost, computed.

    python benchmarks/curation/scale.py > table.md

The constants are measured: CPU seconds a document in results-2026-11-24.md; bytes of what is passed
between the stages, and time and memory of the last one, here, on the pipeline's own types. The rest
is arithmetic, written down in docs/scale.md.
"""

import hashlib
import pickle
import resource
import subprocess
import sys
import time

import numpy as np

from components.curate.deduplicate import Edge, Rank, cluster
from components.curate.near_duplicates import NearDuplicateSettings
from data.catalogue import find_chip

# results-2026-11-24.md: near duplicates on the whole input, 95,228 documents of 100 MB, 17.4 s.
DOCUMENT_BYTES = 100e6 / 95_228
CPU_SECONDS_PER_DOCUMENT = 17.4 / 95_228
TEXT_MOVES = 3  # into partitions, and to both joins
BANDS, ENTRY_BYTES = 14, 24  # hash, content key, reference
# Assumed, not measured: a tenth of the documents are near copies, each in two verified edges.
EDGES_PER_DOCUMENT = 0.2
WORKER_BYTES = 4e9  # a worker: one core, 4 GB, of which half may be data
USABLE = 0.5
COPIES_IN_MEMORY = 3  # a partition while it is merged, sorted and concatenated
SETTINGS = NearDuplicateSettings(min_jaccard=0.8, ngram_words=5, bands=14, rows=8)


def edges(count: int) -> list[Edge]:
    """Pairs of documents with ids as ingest makes them."""
    made = []
    for i in range(count):
        made.append(Edge(2 * i, _rank(2 * i), 2 * i + 1, _rank(2 * i + 1), 0.9))
    return made


def _rank(i: int) -> Rank:
    content = hashlib.blake2b(str(i).encode(), digest_size=16).digest()
    return Rank(True, -i, f"part-{i % 1000:05d}.jsonl:{i * 1000}".encode(), content)


def peak_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure_cluster(count: int) -> dict[str, float]:
    """Memory and time of the last stage, in a process of its own."""
    code = f"from scale import in_process; in_process({count})"
    folder = __file__.rpartition("/")[0]
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    seconds, size = out.stdout.split()
    return {"seconds_per_edge": float(seconds) / count, "bytes_per_edge": float(size) / count}


def in_process(count: int) -> None:
    before = peak_bytes()
    made = edges(count)
    started = time.process_time()
    for _ in cluster(made, SETTINGS):
        pass
    print(time.process_time() - started, peak_bytes() - before)


def message_overhead_bytes() -> float:
    """What a message between two partitions weighs besides its entries."""
    empty = tuple(np.zeros(0, kind) for kind in (np.uint64, np.uint64, np.int64))
    return len(pickle.dumps((0, empty), protocol=5))


def main() -> None:
    overhead = message_overhead_bytes()
    measured = measure_cluster(200_000)
    edge_bytes = len(pickle.dumps(edges(1000))) / 1000
    vcpu_usd = find_chip("cpu-vcpu").price_usd_per_chip_hour or 0.0
    print(f"- a message between partitions: {overhead:.0f} bytes besides its entries")
    print(f"- an edge: {edge_bytes:.0f} bytes on the way, {measured['bytes_per_edge']:.0f} in the")
    print(f"  last stage's memory, {measured['seconds_per_edge'] * 1e6:.1f} microseconds there")
    print(f"- a core: {vcpu_usd} USD an hour\n")
    print(
        "| documents | text | partitions | shuffled: text | bands | messages | CPU hours | "
        "compute | last stage: memory | time |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for exponent in range(6, 11):
        documents = 10.0**exponent
        text = documents * DOCUMENT_BYTES
        per_partition = WORKER_BYTES * USABLE / COPIES_IN_MEMORY
        partitions = max(4, int(np.ceil(documents * (DOCUMENT_BYTES + BANDS * ENTRY_BYTES)
                                        / per_partition)))  # fmt: skip
        bands = documents * BANDS * ENTRY_BYTES
        messages = min(float(partitions) ** 2, documents * BANDS) * overhead
        hours = documents * CPU_SECONDS_PER_DOCUMENT / 3600
        found = documents * EDGES_PER_DOCUMENT
        print(
            f"| 1e{exponent} | {text / 1e9:,.0f} GB | {partitions:,} | "
            f"{TEXT_MOVES * text / 1e9:,.0f} GB | {bands / 1e9:,.1f} GB | "
            f"{messages / 1e9:,.3f} GB | "
            f"{hours:,.1f} | {hours * vcpu_usd:,.2f} USD | "
            f"{found * measured['bytes_per_edge'] / 1e9:,.1f} GB | "
            f"{found * measured['seconds_per_edge'] / 3600:,.2f} h |"
        )
    limit = WORKER_BYTES * USABLE / measured["bytes_per_edge"] / EDGES_PER_DOCUMENT
    print(
        f"\nThe last stage outgrows {WORKER_BYTES * USABLE / 1e9:.0f} GB at {limit:.2g} documents."
    )


if __name__ == "__main__":
    main()
