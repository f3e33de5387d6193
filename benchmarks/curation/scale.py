"""MinHash near-deduplication from 1e6 to 1e10 documents: disk, memory, CPU and cost, computed.

    python benchmarks/curation/scale.py

CPU seconds a document are those of results-2026-11-24.md; sizes are those of the pipeline's own
types; the memory of the last stage's rank tuples is measured here. The rest is arithmetic, written
down in docs/scale.md.
"""

import tracemalloc

from data.catalog.chips import find_chip
from tokenmill.records.sorted_hashes import BUCKETS, ENTRY
from tokenmill.records.staging import ROW

# results-2026-11-24.md: near duplicates on the whole input, 95,228 documents of 100 MB, 12.3 s.
DOCUMENT_BYTES = 100e6 / 95_228
CPU_SECONDS_PER_DOCUMENT = 12.3 / 95_228
ID_BYTES = 30
BANDS = 14
SORT_COPIES = 4  # of a range's entries: as read, the order, ascending, what is shared
# Assumed: a tenth of the documents go as near copies; each is in two verified pairs.
DROPPED, PAIRS, IN_PAIRS = 0.1, 0.2, 0.2
PAIR_BYTES, DROPPED_BYTES = 24, 24  # two references and a similarity; reference, value, kept
WORKER_DATA_BYTES = 2e9  # of a worker with 4 GB


def rank_bytes(count: int = 100_000) -> float:
    """Memory of one rank tuple of the last stage (components/curate/deduplicate.cluster)."""
    tracemalloc.start()
    ranks = [
        (10**6 + i, i % 2, -1000 - i, b"part-%05d.jsonl:%08d" % (i % 1000, i),
         [2**63 + i, 2**62 + i], 2**61 + i, 10**6 + i)
        for i in range(count)
    ]  # fmt: skip
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(ranks)


def main() -> None:
    rank = rank_bytes()
    vcpu_usd = find_chip("cpu-vcpu").price_usd_per_chip_hour or 0.0
    hashes = (BANDS + 1) * ENTRY.itemsize
    staging = DOCUMENT_BYTES + ID_BYTES + ROW.itemsize + hashes
    in_range = BANDS * ENTRY.itemsize / BUCKETS * SORT_COPIES
    everywhere = DROPPED * DROPPED_BYTES
    last = PAIRS * PAIR_BYTES + IN_PAIRS * rank
    print(f"a document: {staging:,.0f} bytes staged, of which {hashes} of hashes")
    print(f"a rank tuple: {rank:,.0f} bytes\n")
    print(
        "| documents | staged | through Beam | one range | every worker | last stage | CPU | cost |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for exponent in range(6, 11):
        documents = 10.0**exponent
        hours = documents * CPU_SECONDS_PER_DOCUMENT / 3600
        moved = documents * (PAIRS * (16 + PAIR_BYTES) + DROPPED * DROPPED_BYTES)
        cells = [documents * size / 1e9 for size in (staging, in_range, everywhere, last)]
        print(
            f"| 1e{exponent} | {cells[0]:,.1f} GB | {moved / 1e9:,.2f} GB | {cells[1]:,.3f} GB | "
            f"{cells[2]:,.3f} GB | {cells[3]:,.2f} GB | {hours:,.1f} h | "
            f"{hours * vcpu_usd:,.2f} USD |"
        )
    print()
    for what, size in (("last stage", last), ("every worker", everywhere), ("range", in_range)):
        print(
            f"{what}: {WORKER_DATA_BYTES / 1e9:.0f} GB at {WORKER_DATA_BYTES / size:.1e} documents"
        )


if __name__ == "__main__":
    main()
