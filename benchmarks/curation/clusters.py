"""Clusters of near duplicates by one worker and in rounds: seconds, memory, bytes shuffled.

    python benchmarks/curation/clusters.py DOCUMENTS [GRAPH...]

GRAPH: near (a fifth of the documents are in clusters, as docs/scale.md assumes), star (all are
copies of one), chain (each is a copy of the next alone; the order is random). Each measurement has
a process of its own. In rounds: DistributedClusters on Beam's runner in Python with one worker
process, so that the worker's memory can be told from that of the shuffle, which the main process
holds. CPU seconds and memory (the kernel's high-water mark, VmHWM) are less those of a run with no
pairs; bytes sent are all that the runner groups by key, as encoded.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import execution
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
from peak_memory import PeakMemory, cpu_seconds

from components.curate.clusters import cluster
from components.curate.config import CurateConfig
from components.curate.deduplicate import DroppedGroup, Edges, join_dropped
from components.curate.distributed_clusters import DistributedClusters
from tokenmill.beam_arguments import beam_arguments
from tokenmill.records.staging import PART_DOCUMENTS, PartWriter, StagedPart

TASKS = 16
CONFIG = CurateConfig()


def write_parts(directory: str, count: int) -> Iterator[StagedPart]:
    rng = np.random.default_rng(2)
    for number, first in enumerate(range(0, count, PART_DOCUMENTS)):
        rows = min(PART_DOCUMENTS, count - first)
        writer = PartWriter(f"{directory}/{number:06d}", "train", TASKS)
        ids = [b"part-%05d.jsonl:%08d" % (number, i) for i in range(rows)]
        payloads = [b"%d" % (first + i) for i in range(rows)]
        sizes = rng.integers(200, 5_000, rows)
        keys = rng.integers(0, 1 << 63, (rows, 2)).astype(np.uint64)
        writer.append(ids, [b"s"] * rows, payloads, sizes, sizes, keys=keys)
        yield writer.close()


def near(nodes: np.ndarray) -> np.ndarray:
    """Clusters of 2 to 4 documents, of a fifth of all: pairs with the leader, and of neighbors."""
    rng = np.random.default_rng(3)
    nodes = nodes[: len(nodes) // 5]
    starts = np.zeros(len(nodes), bool)
    ends = np.cumsum(rng.integers(2, 5, len(nodes)))
    starts[0] = starts[ends[ends < len(nodes)]] = True
    leader = nodes[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    others = np.flatnonzero(~starts)
    pairs = np.concatenate(
        [
            np.stack([leader[others], nodes[others]], axis=1),
            np.stack([nodes[others - 1], nodes[others]], axis=1),
        ]
    )
    return np.unique(np.sort(pairs, axis=1), axis=0)


def star(nodes: np.ndarray) -> np.ndarray:
    return np.sort(np.stack([np.full(len(nodes) - 1, nodes[0]), nodes[1:]], axis=1), axis=1)


def chain(nodes: np.ndarray) -> np.ndarray:
    return np.sort(np.stack([nodes[:-1], nodes[1:]], axis=1), axis=1)


GRAPHS = {"near": near, "star": star, "chain": chain, "none": lambda nodes: star(nodes[:1])}


def edges_of(graph: str, count: int) -> list[Edges]:
    """As TASKS tasks verify them: by the first document of a pair."""
    rng = np.random.default_rng(1)
    pairs = GRAPHS[graph](rng.permutation(count))
    similarities = rng.uniform(0.8, 1, len(pairs))
    tasks = pairs[:, 0] % TASKS
    found = [Edges(pairs[tasks == task], similarities[tasks == task]) for task in range(TASKS)]
    return [edges for edges in found if len(edges.pairs)]


def in_rounds(parts: list[StagedPart], source: str, found: str) -> int:
    """Run DistributedClusters; return the bytes shuffled."""
    options = ["--direct_running_mode=multi_processing", "--direct_num_workers=1"]
    pipeline = beam.Pipeline(options=PipelineOptions(beam_arguments(options)))
    all_parts = beam.pvalue.AsSingleton(pipeline | "Parts" >> beam.Create([parts]))
    (
        pipeline
        | "Tasks" >> beam.Create(range(TASKS))
        | "Spread" >> beam.Reshuffle()
        | "Verified" >> beam.FlatMap(read_edges, source)
        | "Clusters" >> DistributedClusters(all_parts, CONFIG, TASKS)
        | "All" >> beam.combiners.ToList()
        | "Write" >> beam.Map(dump, found)
    )
    execution.GroupingBuffer = CountedBytes
    pipeline.run().wait_until_finish()
    return CountedBytes.total


def read_edges(task: int, source: str) -> Iterator[Edges]:
    import os  # Beam's workers have the functions of this script alone, not its imports
    import pickle

    path = f"{source}/{task}.pickle"
    if os.path.exists(path):
        with open(path, "rb") as file:
            yield pickle.load(file)


def dump(value: object, path: str) -> None:
    import pickle

    with open(path, "wb") as file:
        pickle.dump(value, file)


class CountedBytes(GroupingBuffer):
    """What Beam's runner groups by key, in this process; its encoded bytes are counted."""

    total = 0

    def append(self, elements_data: bytes) -> None:
        CountedBytes.total += len(elements_data)
        super().append(elements_data)


def run(mode: str, home: str) -> None:
    with open(f"{home}/parts.pickle", "rb") as file:
        parts = pickle.load(file)
    memory, cpu, started = PeakMemory(), cpu_seconds(), time.perf_counter()
    shuffled = 0
    if mode == "one worker":
        found = cluster([e for t in range(TASKS) for e in read_edges(t, home)], parts, CONFIG)
        dump([found], f"{home}/{mode}")
    else:
        shuffled = in_rounds(parts, home, f"{home}/{mode}")
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "cpu_seconds": cpu_seconds() - cpu,
                "peak_mb": memory.peaks_mb(),
                "shuffled_bytes": shuffled,
            }
        )
    )


def measured(mode: str, home: str) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--mode", mode, home], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def dropped(path: str) -> list[DroppedGroup]:
    with open(path, "rb") as file:
        return join_dropped(pickle.load(file))


def measure(graph: str, parts: list[StagedPart], count: int) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as home:
        dump(parts, f"{home}/parts.pickle")
        edges = edges_of(graph, count)
        for task, some in enumerate(edges):
            dump(some, f"{home}/{task}.pickle")
        results = {mode: measured(mode, home) for mode in ("one worker", "in rounds")}
        one, many = (dropped(f"{home}/{mode}") for mode in results)
        for group, other in zip(one, many, strict=True):
            for column, its in zip(group, other, strict=True):
                assert np.array_equal(column, its), graph
    results["pairs"] = sum(len(some.pairs) for some in edges)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents")
    parser.add_argument("graphs", nargs="*")
    parser.add_argument("--mode")
    arguments = parser.parse_args()
    if arguments.mode:
        run(arguments.mode, arguments.documents)
        return
    count = int(float(arguments.documents))
    with tempfile.TemporaryDirectory() as directory:
        parts = list(write_parts(directory, count))
        base = measure("none", parts, count)
        print("| graph | documents | pairs | way | s | CPU s | worker MB | shuffle MB | sent MB |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for graph in arguments.graphs or ["near", "star", "chain"]:
            found = measure(graph, parts, count)
            for mode in ("one worker", "in rounds"):
                it, least = found[mode], base[mode]
                own = it["peak_mb"]["self"] - least["peak_mb"]["self"]
                child = it["peak_mb"]["child"] - least["peak_mb"]["child"]
                worker, shuffle = (own, 0.0) if mode == "one worker" else (child, own)
                print(
                    f"| {graph} | {count:,} | {found['pairs']:,} | {mode} | {it['seconds']:.1f} | "
                    f"{it['cpu_seconds'] - least['cpu_seconds']:.1f} | "
                    f"{worker:,.0f} | {shuffle:,.0f} | "
                    f"{it['shuffled_bytes'] / 1e6:,.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
