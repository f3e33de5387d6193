"""MinHash near-deduplication from 1e6 to 1e10 documents: disk, memory, CPU and cost, computed.

    python benchmarks/curation/scale.py

CPU seconds a document are those of results-2026-11-24.md, memory and shuffle of the clusters those
of clusters-2026-11-30.md; sizes are those of the pipeline's own types. The rest is arithmetic,
written down in docs/scale.md.
"""

from components.curate.distributed_clusters import ONE_WORKER_DOCUMENTS
from data.catalog.chips import find_chip
from tokenmill.records.sorted_hashes import BUCKETS, ENTRY
from tokenmill.records.staging import ROW

# results-2026-11-24.md: near duplicates on the whole input, 95,228 documents of 100 MB, 12.3 s.
DOCUMENT_BYTES = 100e6 / 95_228
CPU_SECONDS_PER_DOCUMENT = 12.3 / 95_228
ID_BYTES = 30
BANDS = 14
SORT_COPIES = 4  # of a range's entries: as read, the order, ascending, what is shared
# Assumed, of a document: a tenth of them go as near copies, each of which is in two verified pairs.
DROPPED, PAIRS = 0.1, 0.2
PAIR_BYTES, DROPPED_BYTES = 24, 24  # two references and a similarity; reference, value, kept
WORKER_DATA_BYTES = 2e9  # of a worker with 4 GB
# clusters-2026-11-30.md, graph near, 199,906 pairs: memory of one worker with the documents in the
# pairs (a task holds as much of its part), and what all rounds send.
ONE_WORKER_BYTES_PER_PAIR = 68e6 / 199_906
SENT_BYTES_PER_PAIR = 67.4e6 / 199_906


def main() -> None:
    vcpu_usd = find_chip("cpu-vcpu").price_usd_per_chip_hour or 0.0
    hashes = (BANDS + 1) * ENTRY.itemsize
    staging = DOCUMENT_BYTES + ID_BYTES + ROW.itemsize + hashes
    in_range = BANDS * ENTRY.itemsize / BUCKETS * SORT_COPIES
    everywhere = DROPPED * DROPPED_BYTES
    one_worker = PAIRS * ONE_WORKER_BYTES_PER_PAIR
    task = one_worker / BUCKETS
    print(f"a document: {staging:,.0f} bytes staged, of which {hashes} of hashes\n")
    print(
        "| documents | staging | through Beam | one range | every worker | clusters: one worker | "
        "clusters: a task | CPU | cost |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for exponent in range(6, 11):
        documents = 10.0**exponent
        hours = documents * CPU_SECONDS_PER_DOCUMENT / 3600
        in_rounds = SENT_BYTES_PER_PAIR if documents > ONE_WORKER_DOCUMENTS else 0.0
        moved = PAIRS * (16 + PAIR_BYTES + in_rounds) + DROPPED * DROPPED_BYTES
        sizes = (staging, moved, in_range, everywhere, one_worker, task)
        cells = [f"{documents * size / 1e9:,.3g} GB" for size in sizes]
        print(
            f"| 1e{exponent} | {' | '.join(cells)} | {hours:,.1f} h | {hours * vcpu_usd:,.2f} USD |"
        )
    print()
    for what, size in (
        ("clusters by one worker", one_worker),
        ("every worker", everywhere),
        ("range", in_range),
        ("clusters by 256 tasks", task),
    ):
        print(
            f"{what}: {WORKER_DATA_BYTES / 1e9:.0f} GB at {WORKER_DATA_BYTES / size:.1e} documents"
        )


if __name__ == "__main__":
    main()
