"""Decontamination: no run of n words of the held-out text, or of a benchmark, stays in train.

Held-out text that shares a run of words with the training text says less about the model than it
seems to. Which side gives way is a choice: dropping the held-out documents costs few tokens and
leaves the harder ones to be judged by; dropping the training documents keeps the held-out sample
as it was drawn. Benchmarks cannot give way, so for them it is always the training documents.

The n-grams of the held-out split and of the benchmarks are a side input (8 bytes each).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from components.curate.config import GivesWay
from components.curate.deduplicate import NO_COPY, DroppedGroup, dropped_mask
from components.curate.first_pass import DROPPED_ROW
from components.curate.near_duplicates import Shingles, shingle
from tokenmill.records.documents import BATCH_BYTES, BATCH_DOCUMENTS
from tokenmill.records.staging import StagedPart, Staging, read_rows, read_texts

CONTAMINATED = "contaminated"

_SHARED = "shared"


class Decontaminate(beam.PTransform):
    """Parts -> [DroppedGroup] of one element: all that overlaps.

    Args:
        gives_way: Which split loses documents for overlaps between train and held-out text.
        ngram_words: Length of a run of words.
        benchmarks: Texts that must not occur in train either.
        parts: All parts, as a side input.
        dropped: The copies that go, as a side input.
    """

    def __init__(
        self,
        gives_way: GivesWay,
        ngram_words: int,
        benchmarks: Sequence[str],
        parts: beam.pvalue.AsSideInput,
        dropped: beam.pvalue.AsSideInput,
    ):
        super().__init__()
        self._gives_way, self._words = gives_way, ngram_words
        self._benchmarks = ngram_set(benchmarks, ngram_words)
        self._parts, self._dropped = parts, dropped

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        """Compare one split with the n-grams of the other, and train with the benchmarks."""
        # Each look at the parts has its own shuffle (of their names): what is fused into the stage
        # that others wait for would wait for itself.
        words, sides = self._words, (self._parts, self._dropped)
        nothing = np.zeros(0, np.uint64)
        in_train: Any = nothing
        if self._gives_way != "off":
            in_train = beam.pvalue.AsSingleton(
                parts
                | "SpreadHeldOut" >> beam.Reshuffle()
                | "HeldOutNgrams" >> beam.FlatMap(held_out_ngrams, words, *sides)
                | "HeldOut" >> beam.CombineGlobally(_union)
            )
        train = (
            parts
            | "SpreadTrain" >> beam.Reshuffle()
            | "Train"
            >> beam.FlatMap(
                train_overlaps, words, *sides, self._benchmarks, in_train, self._gives_way
            ).with_outputs(_SHARED, main="dropped")
        )
        gone = [train.dropped]
        if self._gives_way == "held-out":
            shared = train[_SHARED] | "Shared" >> beam.CombineGlobally(_union)
            gone.append(
                parts
                | "SpreadHeldOutAgain" >> beam.Reshuffle()
                | "DropHeldOut"
                >> beam.FlatMap(held_out_overlaps, words, *sides, beam.pvalue.AsSingleton(shared))
            )
        return gone | beam.Flatten() | beam.combiners.ToList()


def ngram_set(texts: Sequence[str], ngram_words: int) -> np.ndarray:
    """Return all n-grams of the texts, distinct, uint64, ascending."""
    return np.unique(shingle(texts, ngram_words).hashes) if texts else np.zeros(0, np.uint64)


def overlaps(shingles: Shingles, forbidden: np.ndarray) -> np.ndarray:
    """Count the n-grams of each document that are in `forbidden` (ascending), int64 [documents]."""
    hits = np.concatenate(([0], np.cumsum(_is_in(shingles.hashes, forbidden), dtype=np.int64)))
    return np.diff(hits[shingles.first])


def held_out_ngrams(
    part: StagedPart, ngram_words: int, parts: list[StagedPart], dropped: list[DroppedGroup]
) -> Iterator[np.ndarray]:
    """Yield the n-grams of a part, if it is of the held-out split."""
    if part.split == "eval":
        for _, shingles in _batches(part, ngram_words, parts, dropped):
            yield np.unique(shingles.hashes)


def train_overlaps(
    part: StagedPart,
    ngram_words: int,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    benchmarks: np.ndarray,
    held_out: np.ndarray,
    gives_way: GivesWay,
) -> Iterator[Any]:
    """Yield what a part of train loses and, tagged, the n-grams that it shares with held-out."""
    if part.split != "train" or not (len(benchmarks) or len(held_out)):
        return
    for references, shingles in _batches(part, ngram_words, parts, dropped):
        hits = overlaps(shingles, benchmarks)
        if gives_way == "train":
            hits = np.where(hits > 0, hits, overlaps(shingles, held_out))
        yield from _dropped(references, hits)
        if gives_way == "held-out":
            stays = np.repeat(hits == 0, np.diff(shingles.first))
            hashes = np.unique(shingles.hashes[stays])
            yield beam.pvalue.TaggedOutput(_SHARED, hashes[_is_in(hashes, held_out)])


def held_out_overlaps(
    part: StagedPart,
    ngram_words: int,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    shared: np.ndarray,
) -> Iterator[DroppedGroup]:
    """Yield what a part of the held-out split loses."""
    if part.split == "eval" and len(shared):
        for references, shingles in _batches(part, ngram_words, parts, dropped):
            yield from _dropped(references, overlaps(shingles, shared))


def _dropped(references: np.ndarray, hits: np.ndarray) -> Iterator[DroppedGroup]:
    gone = np.flatnonzero(hits)
    if len(gone):
        yield DroppedGroup(
            CONTAMINATED,
            references[gone],
            hits[gone].astype(np.float64),
            0.0,
            np.full(len(gone), NO_COPY),
        )


def _batches(
    part: StagedPart, ngram_words: int, parts: list[StagedPart], dropped: list[DroppedGroup]
) -> Iterator[tuple[np.ndarray, Shingles]]:
    """Yield (references, n-gram sets) of the documents of a part that are left, in batches."""
    staging = Staging(parts)
    first = int(staging.first[staging.parts.index(part)])
    rows = read_rows(part)
    live = (rows["flag"] != DROPPED_ROW) & ~dropped_mask(dropped, first, len(rows))
    places = np.flatnonzero(live)
    texts: list[str] = []
    size = start = 0
    for place, text in enumerate(read_texts(part, rows[places])):
        texts.append(text.decode())
        size += len(text)
        if len(texts) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield first + places[start : place + 1], shingle(texts, ngram_words)
            texts, size, start = [], 0, place + 1
    if texts:
        yield first + places[start:], shingle(texts, ngram_words)


def _is_in(hashes: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(hashes), bool)
    place = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
    return ascending[place] == hashes


def _union(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *arrays]))
