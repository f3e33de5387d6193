"""Exact and near deduplication in Beam, over partitions of documents.

Documents lie in partitions by a hash of their content, so exact copies always meet. A partition
is one Arrow batch, sorted; a document is referred to by partition and place in it. Near copies
meet by their LSH bands, are verified on their n-gram sets, and are joined into clusters over any
number of hops; of each cluster one copy stays. The text itself is shuffled by partition only.

What is held at once: a partition; the band hashes of one band partition; and, in one worker, all
verified pairs (about 150 bytes each).
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.curate.near_duplicates import (
    NearDuplicateSettings,
    all_ngrams,
    band_hashes,
    components,
    jaccard,
    propose_pairs,
    shingle,
)
from components.curate.normalise import content_key
from components.documents import stable_hash

EXACT_DUPLICATE = "exact_duplicate"
NEAR_DUPLICATE = "near_duplicate"

# Documents that passed the rules. `raw_bytes` is the length before normalisation.
CANDIDATE_SCHEMA = pa.schema(
    [
        ("is_train", pa.bool_()),
        ("doc_id", pa.large_binary()),
        ("source", pa.large_binary()),
        ("text", pa.large_binary()),
        ("raw_bytes", pa.int64()),
    ]
)

# A document's place in its partition takes the low bits of a reference.
_PLACE_BITS = 32
_DOCUMENTS_AT_ONCE = 512


class Dropped(NamedTuple):
    """A copy that goes: its place in the partition, why, and which copy stays."""

    place: int
    reason: str
    value: float
    threshold: float
    kept_copy: bytes


class Rank(NamedTuple):
    """Of several copies the least stays: held-out before train, longest, smallest id.

    A held-out copy goes first so that no held-out text is trained on; the rest is an order that
    no scheduling can change.
    """

    is_train: bool
    shorter: int
    doc_id: bytes
    content: bytes


class Edge(NamedTuple):
    """Two near duplicates."""

    first: int
    first_rank: Rank
    second: int
    second_rank: Rank
    similarity: float


def merge_partition(groups: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """One sorted batch of all documents of a partition."""
    table = pa.Table.from_batches(list(groups), CANDIDATE_SCHEMA)
    keys = [(name, "ascending") for name in ("is_train", "doc_id", "text", "source", "raw_bytes")]
    table = table.take(_sort_indices(table, keys)).combine_chunks()
    (batch,) = table.to_batches() or [_empty()]
    return batch


def _sort_indices(table: pa.Table, keys: list[tuple[str, str]]) -> pa.Array:
    columns = [table.column(name).to_pylist() for name, _ in keys]
    rows = list(zip(*columns, strict=True))
    return pa.array(sorted(range(len(rows)), key=rows.__getitem__), pa.int64())


def _empty() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([], f.type) for f in CANDIDATE_SCHEMA], schema=CANDIDATE_SCHEMA
    )


def exact_copies(batch: pa.RecordBatch) -> list[Dropped]:
    """The copies of a sorted partition that go: all but the first of each content."""
    first: dict[bytes, int] = {}
    doc_ids, texts = batch.column(1).to_pylist(), batch.column(3).to_pylist()
    dropped = []
    for place, text in enumerate(texts):
        winner = first.setdefault(content_key(text), place)
        if winner != place:
            dropped.append(Dropped(place, EXACT_DUPLICATE, 1.0, 1.0, doc_ids[winner]))
    return dropped


def without(batch: pa.RecordBatch, dropped: Iterable[Dropped]) -> pa.RecordBatch:
    """The documents of a partition that stay."""
    keep = np.ones(batch.num_rows, bool)
    keep[[d.place for d in dropped]] = False
    return batch.filter(pa.array(keep))


def _ranks(batch: pa.RecordBatch, places: Iterable[int]) -> list[Rank]:
    is_train, doc_ids, texts = (batch.column(i) for i in (0, 1, 3))
    ranks = []
    for place in places:
        text = texts[place].as_py()
        rank = Rank(is_train[place].as_py(), -len(text), doc_ids[place].as_py(), content_key(text))
        ranks.append(rank)
    return ranks


def _texts(batch: pa.RecordBatch, places: Iterable[int]) -> list[str]:
    column = batch.column(3)
    return [column[p].as_py().decode() for p in places]


class FindNearDuplicates(beam.PTransform):
    """(partition, batch without exact copies) -> (partition, [Dropped])."""

    def __init__(self, settings: NearDuplicateSettings, partitions: int):
        super().__init__()
        self._settings, self._partitions = settings, partitions

    def expand(self, partitions: beam.PCollection) -> beam.PCollection:
        """Bands, proposals, verification, clusters."""
        settings = self._settings
        proposals = (
            partitions
            | "Bands" >> beam.FlatMap(_bands, settings, self._partitions)
            | "ByBand" >> beam.GroupByKey()
            | "Propose" >> beam.FlatMap(_propose)
            | "DistinctPairs" >> beam.GroupByKey()
        )
        # The first document's n-grams travel to the second's partition, once for each of the two.
        requests = (
            {"batch": partitions, "pairs": proposals}
            | "JoinFirst" >> beam.CoGroupByKey()
            | "Shingle" >> beam.FlatMap(_request, settings)
        )
        return (
            {"batch": partitions, "requests": requests}
            | "JoinSecond" >> beam.CoGroupByKey()
            | "Verify" >> beam.FlatMap(_verify, settings)
            | "Edges" >> beam.combiners.ToList()
            | "Cluster" >> beam.FlatMap(cluster, settings)
        )


def _reference(partition: int, place: int) -> int:
    return partition << _PLACE_BITS | place


def _chunks(count: int) -> Iterator[range]:
    for start in range(0, count, _DOCUMENTS_AT_ONCE):
        yield range(start, min(start + _DOCUMENTS_AT_ONCE, count))


def _bands(
    item: tuple[int, pa.RecordBatch], settings: NearDuplicateSettings, partitions: int
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    partition, batch = item
    parts = []
    for places in _chunks(batch.num_rows):
        texts = _texts(batch, places)
        shingles = all_ngrams(texts, settings.ngram_words)
        long_enough = np.flatnonzero(np.diff(shingles.first))  # others have nothing to compare
        keys = np.array([stable_hash(texts[i].encode()) for i in long_enough], np.uint64)
        references = _reference(partition, places.start) + long_enough
        parts.append(
            (
                band_hashes(shingles, settings)[long_enough].ravel(),
                np.repeat(keys, settings.bands),
                np.repeat(references, settings.bands),
            )
        )
    if not parts:
        return
    entries = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    target = entries[0] % np.uint64(partitions)
    for band_partition in np.unique(target):
        mine = target == band_partition
        yield int(band_partition), tuple(column[mine] for column in entries)


def _propose(
    item: tuple[int, Iterable[tuple[np.ndarray, ...]]],
) -> Iterator[tuple[int, np.ndarray]]:
    pairs = propose_pairs(*(np.concatenate(column) for column in zip(*item[1], strict=True)))
    first_partition = pairs[:, 0] >> _PLACE_BITS
    for partition in np.unique(first_partition):
        yield int(partition), pairs[first_partition == partition]


def _joined(item: tuple[int, dict[str, Any]]) -> pa.RecordBatch | None:
    batches = list(item[1]["batch"])
    return batches[0] if batches else None


def _request(
    item: tuple[int, dict[str, Any]], settings: NearDuplicateSettings
) -> Iterator[tuple[int, list]]:
    """For each other partition: (first, its rank, its n-grams, the places to compare)."""
    batch = _joined(item)
    arrays = [pairs for group in item[1]["pairs"] for pairs in group]
    if batch is None or not arrays:
        return
    pairs = np.unique(np.concatenate(arrays), axis=0)
    places = np.unique(pairs[:, 0] & (2**_PLACE_BITS - 1)).tolist()
    shingles = shingle(_texts(batch, places), settings.ngram_words)
    ranks = dict(zip(places, _ranks(batch, places), strict=True))
    index = {place: i for i, place in enumerate(places)}
    requests: dict[int, dict[int, list[int]]] = {}
    for first, second in pairs.tolist():
        target = requests.setdefault(second >> _PLACE_BITS, {})
        target.setdefault(first, []).append(second & (2**_PLACE_BITS - 1))
    for partition, by_first in requests.items():
        wanted = []
        for first, seconds in by_first.items():
            place = first & (2**_PLACE_BITS - 1)
            wanted.append((first, ranks[place], shingles.of(index[place]), seconds))
        yield partition, wanted


def _verify(item: tuple[int, dict[str, Any]], settings: NearDuplicateSettings) -> Iterator[Edge]:
    batch = _joined(item)
    requests = [request for group in item[1]["requests"] for request in group]
    if batch is None or not requests:
        return
    places = sorted({place for *_, seconds in requests for place in seconds})
    shingles = shingle(_texts(batch, places), settings.ngram_words)
    ranks = dict(zip(places, _ranks(batch, places), strict=True))
    index = {place: i for i, place in enumerate(places)}
    for first, first_rank, first_set, seconds in requests:
        for place in seconds:
            similarity = jaccard(first_set, shingles.of(index[place]))
            if similarity >= settings.min_jaccard:
                second = _reference(item[0], place)
                yield Edge(first, first_rank, second, ranks[place], similarity)


def cluster(
    edges: list[Edge], settings: NearDuplicateSettings
) -> Iterator[tuple[int, list[Dropped]]]:
    """Joins near duplicates over any number of hops; all but the best of a cluster go.

    The value recorded for a dropped copy is its greatest similarity to any other of the cluster.
    """
    labels = components((e.first, e.second) for e in edges)
    rank: dict[int, Rank] = {}
    similarity: dict[int, float] = {}
    for edge in edges:
        for document, its_rank in ((edge.first, edge.first_rank), (edge.second, edge.second_rank)):
            rank[document] = its_rank
            similarity[document] = max(similarity.get(document, 0.0), edge.similarity)
    best: dict[int, int] = {}
    for document in sorted(labels, key=lambda d: (rank[d], d)):
        best.setdefault(labels[document], document)
    by_partition: dict[int, list[Dropped]] = {}
    for document, label in sorted(labels.items()):
        if best[label] != document:
            by_partition.setdefault(document >> _PLACE_BITS, []).append(
                Dropped(
                    document & (2**_PLACE_BITS - 1),
                    NEAR_DUPLICATE,
                    similarity[document],
                    settings.min_jaccard,
                    rank[best[label]].doc_id,
                )
            )
    yield from by_partition.items()
