"""Exact and near duplicates among staged documents.

Documents are numbers (references); what has the same hash, of its content or of an
LSH band, is found by ranges of the hash. Near copies are verified on their n-gram sets, read back
from disk. Which copy of a cluster stays is found in clusters.py and distributed_clusters.py.

What is held at once: the hashes of one range (12 bytes an entry), the pairs of one task, and some
thousand texts to verify.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from components.curate.config import CurateConfig
from components.curate.first_pass import BANDS, CONTENT
from components.curate.near_duplicates import jaccards, propose_pairs, shingle
from tokenmill.records.staging import StagedPart, Staging

EXACT_DUPLICATE = "exact_duplicate"
NEAR_DUPLICATE = "near_duplicate"

# Of the texts that are verified at once.
_VERIFY_PAIRS = 4096
_VERIFY_BYTES = 32 << 20

NO_COPY = -1


class DroppedGroup(NamedTuple):
    """Documents that go for one reason.

    Attributes:
        reason: The drop reason.
        references: int64 [documents].
        values: float64 [documents], what was measured.
        threshold: What it was held against.
        kept: int64 [documents], the copy that stays, or who shares a run of words; NO_COPY for
            none; below it, NO_COPY - 1 - the number of a benchmark text.
        runs: int64 [documents, 2], first and number of the words of this run; None for none.
    """

    reason: str
    references: np.ndarray
    values: np.ndarray
    threshold: float
    kept: np.ndarray
    runs: np.ndarray | None = None


class Edges(NamedTuple):
    """Near duplicates: int64 [pairs, 2] references, float64 [pairs] similarities."""

    pairs: np.ndarray
    similarities: np.ndarray


def join_edges(edges: Sequence[Edges]) -> Edges:
    """Return all edges as one; at least one is given."""
    return Edges(*(np.concatenate(column) for column in zip(*edges, strict=True)))


def join_dropped(lists: Iterable[list[DroppedGroup]]) -> list[DroppedGroup]:
    """Return one group a reason, documents ascending: what a part loses is then a slice."""
    by_reason: dict[tuple[str, float], list[DroppedGroup]] = {}
    for groups in lists:
        for group in groups:
            by_reason.setdefault((group.reason, group.threshold), []).append(group)
    joined = []
    for (reason, threshold), groups in sorted(by_reason.items()):
        references, values, kept = (
            np.concatenate([group[i] for group in groups]) for i in (1, 2, 4)
        )
        runs = [np.zeros((len(g.kept), 2), np.int64) if g.runs is None else g.runs for g in groups]
        order = np.argsort(references, kind="stable")
        joined.append(
            DroppedGroup(
                reason,
                references[order],
                values[order],
                threshold,
                kept[order],
                np.concatenate(runs)[order],
            )
        )
    return joined


def dropped_slice(group: DroppedGroup, first: int, count: int) -> slice:
    """Return the slice of a group from `join_dropped` for documents first .. first + count - 1."""
    start, end = np.searchsorted(group.references, [first, first + count]).tolist()
    return slice(start, end)


def dropped_mask(dropped: Iterable[DroppedGroup], first: int, count: int) -> np.ndarray:
    """Tell which of the documents first .. first + count - 1 are dropped, bool [count]."""
    mask = np.zeros(count, bool)
    for group in dropped:
        mask[group.references[dropped_slice(group, first, count)] - first] = True
    return mask


def is_dropped(dropped: Iterable[DroppedGroup], references: np.ndarray) -> np.ndarray:
    """Tell which documents are dropped, bool [references]."""
    gone = np.zeros(len(references), bool)
    for group in dropped:
        if len(group.references):
            place = np.searchsorted(group.references, references)
            gone |= group.references[np.minimum(place, len(group.references) - 1)] == references
    return gone


def exact_copies(
    hash_range: int, parts: list[StagedPart], hash_ranges: int
) -> Iterator[DroppedGroup]:
    """Yield the copies in one range of content keys that are dropped: all but the first of each.

    The first is a held-out one before a train one, then the one with the least id; copies that
    share their id go by what else they hold. No scheduling changes that.
    """
    staging = Staging(parts)
    hashes, references = staging.hashes_in_range(CONTENT, hash_range, hash_ranges)
    references = references[_shared(hashes)]
    rows = staging.rows_of(references)
    keys = rows["key"]
    ranks = zip(
        keys[:, 0].tolist(),
        keys[:, 1].tolist(),
        staging.splits_of(references).tolist(),
        staging.ids_of(references, rows),
        rows["digest"].tolist(),
        rows["raw_bytes"].tolist(),
        references.tolist(),
        strict=True,
    )
    gone, kept = [], []
    winner: tuple | None = None
    for rank in sorted(ranks):
        if winner is not None and winner[:2] == rank[:2]:
            gone.append(rank[-1])
            kept.append(winner[-1])
        else:
            winner = rank
    if gone:
        yield DroppedGroup(
            EXACT_DUPLICATE,
            np.array(gone, np.int64),
            np.ones(len(gone)),
            1.0,
            np.array(kept, np.int64),
        )


def propose(
    hash_range: int, parts: list[StagedPart], dropped: list[DroppedGroup], hash_ranges: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield candidate pairs from one range of band hashes: (verifying task, int64 [pairs, 2]).

    Pairs with the same leader meet in one task, where each text is then read once.
    """
    staging = Staging(parts)
    hashes, references = staging.hashes_in_range(BANDS, hash_range, hash_ranges)
    live = ~is_dropped(dropped, references)
    hashes, references = hashes[live], references[live]
    shared = _shared(hashes)
    hashes, references = hashes[shared], references[shared]
    documents, index = np.unique(references, return_inverse=True)
    digests = staging.rows_of(documents)["digest"]
    pairs, leaders = propose_pairs(hashes, digests[index], references)
    tasks = leaders % hash_ranges
    for task in np.unique(tasks).tolist():
        yield task, pairs[tasks == task]


def verify(
    item: tuple[int, Iterable[np.ndarray]], parts: list[StagedPart], config: CurateConfig
) -> Iterator[Edges]:
    """Yield the pairs of a task that are similar enough, all at once; nothing if none are."""
    staging = Staging(parts)
    found = []
    pairs = np.unique(np.concatenate(list(item[1])), axis=0)
    documents, index = np.unique(pairs, return_inverse=True)
    index = index.reshape(-1, 2)
    rows = staging.rows_of(documents)
    for start, end in _chunks(rows["text_size"][index].sum(axis=1, dtype=np.int64)):
        some, within = np.unique(index[start:end], return_inverse=True)
        shingles = shingle(
            staging.texts_of(documents[some], rows[some]), config.near_duplicate_ngram_words
        )
        similarities = jaccards(shingles, within.reshape(-1, 2))
        similar = similarities >= config.near_duplicate_min_jaccard
        found.append(Edges(pairs[start:end][similar], similarities[similar]))
    joined = join_edges(found)
    if len(joined.pairs):
        yield joined


def _shared(hashes: np.ndarray) -> np.ndarray:
    """Tell which hashes occur at least twice, bool [entries]."""
    order = np.argsort(hashes, kind="stable")
    ascending = hashes[order]
    same = ascending[1:] == ascending[:-1]
    shared = np.zeros(len(hashes), bool)
    shared[order[1:][same]] = True
    shared[order[:-1][same]] = True
    return shared


def _chunks(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of runs of up to _VERIFY_PAIRS pairs and (or one pair) _VERIFY_BYTES."""
    start, total = 0, 0
    for place, size in enumerate(sizes.tolist()):
        if place > start and (total + size > _VERIFY_BYTES or place - start == _VERIFY_PAIRS):
            yield start, place
            start, total = place, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)
