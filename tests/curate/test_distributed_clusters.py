"""Clusters by many workers: equal to union-find and to one worker's, on graphs of all kinds."""

import itertools
import pickle
import random
import tracemalloc

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from components.curate import star_rounds
from components.curate.clusters import cluster
from components.curate.config import CurateConfig
from components.curate.deduplicate import Edges, join_dropped
from components.curate.distributed_clusters import (
    ONE_WORKER_DOCUMENTS,
    DistributedClusters,
    cluster_rounds,
    join_left,
    settle,
)
from components.curate.star_rounds import (
    by_child,
    large_star,
    look_up,
    owners,
    send,
    small_star,
    stars,
)
from tokenmill.beam_arguments import beam_arguments
from tokenmill.records.staging import PartWriter

SETTINGS = CurateConfig()


def union_find(pairs):
    """Node -> the least node that it is connected with."""
    parents = {}

    def find(node):
        root = node
        while parents.setdefault(root, root) != root:
            root = parents[root]
        while parents[node] != root:
            parents[node], node = root, parents[node]
        return root

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        parents[high] = low
    return {node: find(node) for node in list(parents)}


# ---- the rounds, on arrays


def grouped(items):
    """What GroupByKey makes of (key, value) of many."""
    by_key = {}
    for key, value in items:
        by_key.setdefault(key, []).append(value)
    return by_key.items()


def rounds_of(edges, tasks, rounds):
    """Edges after each round, the first before any, as lists of (task, edges)."""
    sent = list(by_child(edges, tasks))
    yield sent
    for _ in range(rounds):
        sent = [out for item in grouped(sent) for out in small_star(item, tasks)]
        sent = [out for item in grouped(sent) for out in large_star(item, tasks)]
        yield sent


def labels_after(pairs, tasks, rounds, first=stars):
    """Node -> label, and the number of edges that are left to one worker."""
    *_, sent = rounds_of(first(pairs), tasks, rounds)
    edges = np.concatenate([rows for _, rows in sent])
    loops = np.repeat(np.unique(edges[:, 1])[:, None], 2, axis=1)
    rows = np.concatenate([edges, loops])
    left, found = [], []
    for task, mine in send(owners(rows[:, 0], tasks), rows):
        for out in settle((task, {"edges": [mine], "similarities": []})):
            if isinstance(out, beam.pvalue.TaggedOutput):
                left.append(out.value)
            else:
                found.append(out[1])
    joined = join_left(left)
    labels = {}
    for members in found:
        final = look_up(joined, members.labels)
        labels.update(zip(members.documents.tolist(), final.tolist(), strict=True))
    return labels, sum(map(len, left))


def ascending(pairs):
    """Edges (child, parent), each once, as the rounds take them without `stars` before."""
    return np.unique(np.sort(pairs, axis=1)[:, ::-1], axis=0)


PAIRS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda pair: pair[0] != pair[1]),
    min_size=1,
    max_size=60,
)


@settings(max_examples=200)
@given(PAIRS, st.integers(1, 5), st.integers(0, 3), st.sampled_from([stars, ascending]))
def test_labels_are_those_of_union_find_after_any_number_of_rounds(pairs, tasks, rounds, first):
    labels, _ = labels_after(np.array(pairs, np.int64), tasks, rounds, first)
    assert labels == union_find(pairs)


@settings(max_examples=50)
@given(PAIRS, st.integers(1, 5))
def test_a_round_makes_no_edges(pairs, tasks):
    counts = [
        sum(len(rows) for _, rows in sent)
        for sent in rounds_of(ascending(np.array(pairs, np.int64)), tasks, 6)
    ]
    assert counts == sorted(counts, reverse=True)


def chain(count, rng):
    nodes = rng.permutation(count)
    return np.stack([nodes[:-1], nodes[1:]], axis=1)


def star(count, rng):
    nodes = rng.permutation(count)
    return np.stack([np.full(count - 1, nodes[0]), nodes[1:]], axis=1)


def clique(count, rng):
    return np.array(list(itertools.combinations(rng.permutation(count).tolist(), 2)))


def many_small(count, rng):
    """Clusters of two to five documents in a row, which are chains."""
    nodes = rng.permutation(count)
    starts = np.cumsum(rng.integers(2, 6, count))
    together = ~np.isin(np.arange(1, count), starts)
    return np.stack([nodes[:-1], nodes[1:]], axis=1)[together]


def at_random(count, rng):
    pairs = rng.integers(0, count, (count // 2, 2))
    return pairs[pairs[:, 0] != pairs[:, 1]]


GRAPHS = {
    "a chain": (chain, 100_000),
    "a star": (star, 100_000),
    "a clique": (clique, 300),
    "many small ones": (many_small, 100_000),
    "at random, with a giant one": (at_random, 100_000),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_large_graphs(name):
    make, count = GRAPHS[name]
    pairs = make(count, np.random.default_rng(5))
    expected = union_find(pairs.tolist())
    before = None
    for rounds in (0, 4):
        labels, left = labels_after(pairs, 7, rounds, ascending)
        assert labels == expected
        if before is not None:
            print(f"{name}: {before:,} edges left after no round, {left:,} after {rounds}")
            assert left <= before / 16
        before = left


class Spilled:
    """Values of a key that a runner keeps on disk: each is made when it is read."""

    def __init__(self, make, chunks):
        self._make, self._chunks = make, chunks

    def __iter__(self):
        return (self._make(i) for i in range(self._chunks))


def test_a_task_does_not_hold_the_edges_of_a_hub(monkeypatch):
    """A million leaves of one node are 16 MB."""
    monkeypatch.setattr(star_rounds, "_BATCH_EDGES", 1 << 14)

    def leaves(i):
        return np.arange(i * 10_000, (i + 1) * 10_000) + 1_000_000

    def of_hub(i, hub):
        return np.stack([np.full(10_000, hub), leaves(i)], axis=1)

    for step, hub in ((large_star, 5), (small_star, 10_000_000)):
        values = Spilled(lambda i, hub=hub: of_hub(i, hub), 100)
        tracemalloc.start()
        count = sum(len(rows) for _, rows in step((0, values), 3))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == (1_000_000 if step is large_star else 2 * 1_000_000)
        assert peak < 6e6


# ---- in Beam


def staged(directory, count, seed):
    """Parts of documents with lengths, splits and ids that tie now and then."""
    rng = random.Random(seed)
    parts = []
    for number, first in enumerate(range(0, count, 32_768)):
        rows = min(32_768, count - first)
        split = "eval" if number == 1 else "train"
        writer = PartWriter(str(directory / f"{number:04d}"), split, shards=3)
        ids = [b"%d" % rng.randrange(count) for _ in range(rows)]
        texts = [b"x" * rng.randrange(1, 8) for _ in range(rows)]
        sizes = [len(text) for text in texts]
        keys = np.array([(size, i % 2) for i, size in enumerate(sizes)], np.uint64)
        writer.append(ids, [b"s"] * rows, texts, sizes, sizes, keys=keys)
        parts.append(writer.close())
    return parts


def dump(value, path):
    with open(path, "wb") as file:
        pickle.dump(value, file)


def distributed(edges, parts, tasks, rounds, path):
    with beam.Pipeline(options=PipelineOptions(beam_arguments())) as pipeline:
        all_parts = beam.pvalue.AsSingleton(pipeline | "Parts" >> beam.Create([parts]))
        (
            pipeline
            | "Edges" >> beam.Create(edges)
            | DistributedClusters(all_parts, SETTINGS, tasks, rounds)
            | beam.combiners.ToList()
            | beam.Map(dump, str(path))
        )
    return join_dropped(pickle.loads(path.read_bytes()))


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.reason, one.threshold) == (other.reason, other.threshold)
        for name in ("references", "values", "kept"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(("tasks", "rounds"), [(5, 4), (3, 0)])
def test_the_copies_that_one_worker_drops(tmp_path, tasks, rounds):
    """All graphs side by side, their pairs in an order of their own, a hundred at a time."""
    rng = np.random.default_rng(tasks + rounds)
    graphs, count = [], 0
    for make, size in GRAPHS.values():
        size = min(size, 10_000)
        graphs.append(make(size, rng) + count)
        count += size
    nodes = rng.permutation(count + 1_000)  # some are in no cluster
    pairs = np.sort(nodes[np.concatenate(graphs)], axis=1)
    pairs = pairs[rng.permutation(len(pairs))]
    similarities = rng.uniform(0.8, 1.0, len(pairs)).round(2)
    edges = [Edges(pairs[i : i + 1_000], similarities[i : i + 1_000])
             for i in range(0, len(pairs), 1_000)]  # fmt: skip
    parts = staged(tmp_path, len(nodes), seed=rounds)
    expected = join_dropped([cluster(edges, parts, SETTINGS)])
    assert len(expected[0].references) > 25_000
    found = distributed(edges, parts, tasks, rounds, tmp_path / "found")
    assert_same(found, expected)


def test_nothing_is_dropped_where_no_pair_is(tmp_path):
    parts = staged(tmp_path, 10, seed=1)
    assert distributed([], parts, 3, 2, tmp_path / "found") == []


def test_curation_is_the_same_by_many_workers(curate):
    rng = random.Random(8)
    words = [f"w{i}" for i in range(4_000)]
    documents = []
    for i in range(200):
        text = rng.choices(words, k=80)
        for hop in range(rng.randrange(4)):
            text = [*text]
            text[10 + 17 * hop] = f"new{i}-{hop}"
            documents.append((rng.choice(["train", "train", "eval"]), text))
    rng.shuffle(documents)
    rows = [
        (split, b"%04d" % i, b"s", " ".join(text).encode())
        for i, (split, text) in enumerate(documents)
    ]
    asked = curate.settings(near_duplicates="drop", partitions=4)
    one = curate(rows, asked)
    many = curate(rows, asked, cluster_rounds=2)
    assert many == one
    assert set(one.reasons().values()) == {"near_duplicate"}


def test_rounds_are_for_many_documents_and_a_shuffle_that_is_not_in_memory():
    many = ONE_WORKER_DOCUMENTS + 1
    for runner in ("FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner"):
        options = PipelineOptions([f"--runner={runner}"])
        assert cluster_rounds(many, options) > 0
        assert cluster_rounds(many - 1, options) == 0
    for arguments in ([], ["--runner=DirectRunner"], beam_arguments()):
        assert cluster_rounds(many, PipelineOptions(arguments)) == 0
