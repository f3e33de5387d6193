"""Decontamination: what the held-out text, or a benchmark, says in its own words is not in train.

Held-out text that shares a run of n words with the training text says less about the model than it
seems to. Which side gives way is a choice: dropping the held-out documents costs few tokens and
leaves the harder ones to be judged by; dropping the training documents keeps the held-out sample
as it was drawn. A run that many documents have (a licence, the frame of a dictionary's entry) is
nobody's own words and contaminates nothing, unless a document has no others.

Benchmarks cannot give way (benchmarks.py).

Words are compared without case and the punctuation around them. The n-grams of the held-out split
are a side input (12 bytes each; 28 if training documents give way).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from components.curate.config import CurateConfig
from components.curate.counts import CONTAMINATED
from components.curate.deduplicate import DroppedGroup, dropped_mask
from components.curate.first_pass import DROPPED_ROW
from components.curate.near_duplicates import Shingles, bare_words, shingle
from tokenmill.records.documents import BATCH_BYTES, BATCH_DOCUMENTS
from tokenmill.records.staging import StagedPart, Staging, read_rows, read_texts
from tokenmill.text.text_columns import is_in, ngrams


class NgramTable(NamedTuple):
    """In how many documents n-grams are, and one document of each.

    Attributes:
        hashes: uint64, ascending.
        counts: uint32, documents.
        digests: uint64, of the document with the least; empty if documents are not asked for.
        references: int64, this document; empty if not asked for.
        documents: How many documents there are.
    """

    hashes: np.ndarray
    counts: np.ndarray
    digests: np.ndarray
    references: np.ndarray
    documents: int

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Return the place of each hash, int64; -1 for one that is not there."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, place, -1)


class Documents(NamedTuple):
    """A batch of documents that are left.

    Attributes:
        references: int64 [documents].
        digests: uint64 [documents].
        texts: The texts.
        shingles: Their n-gram sets.
    """

    references: np.ndarray
    digests: np.ndarray
    texts: list[str]
    shingles: Shingles

    def table(self, watched: np.ndarray | None = None, with_documents: bool = True) -> NgramTable:
        """Return the n-grams (those in `watched`, ascending, if it is given) of the batch."""
        hashes = self.shingles.hashes
        document = np.repeat(np.arange(len(self.references)), np.diff(self.shingles.first))
        if watched is not None:
            kept = is_in(hashes, watched)
            hashes, document = hashes[kept], document[kept]
        some = document if with_documents else document[:0]
        one = NgramTable(
            hashes,
            np.ones(len(hashes), np.uint32),
            self.digests[some],
            self.references[some],
            len(self.references),
        )
        return add_tables([one])


def common_above(documents: int, setting: int | str, fewest: int = 3) -> float:
    """Return in how many documents at most a run of words still contaminates.

    "auto": 10, or one in 10,000 where that is more; of few documents a fifth, `fewest` at least.
    """
    if setting != "auto":
        return float(setting)
    return min(max(10, documents / 10_000), max(fewest, documents / 5))


class Decontaminate(beam.PTransform):
    """Parts -> [DroppedGroup] of one element: what one split loses for what is in the other.

    Args:
        config: Which side gives way, and for what.
        parts: All parts, as a side input.
        dropped: The documents that are gone already, as a side input.
    """

    def __init__(
        self,
        config: CurateConfig,
        parts: beam.pvalue.AsSideInput,
        dropped: beam.pvalue.AsSideInput,
    ):
        super().__init__()
        self._config, self._sides = config, (parts, dropped)

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        """Count the n-grams of held-out text in both splits, then drop what has them."""
        words, sides = self._config.decontaminate_ngram_words, self._sides
        loser = "eval" if self._config.decontaminate == "held-out" else "train"
        # Each look at the parts has its own shuffle (of their names): what is fused into the stage
        # that others wait for would wait for itself.
        held_out = beam.pvalue.AsSingleton(
            parts
            | "SpreadHeldOut" >> beam.Reshuffle()
            | "HeldOutNgrams"
            >> beam.FlatMap(count_ngrams, "eval", words, *sides, None, loser == "train")
            | "HeldOut" >> beam.CombineGlobally(add_tables)
        )
        train = beam.pvalue.AsSingleton(
            parts
            | "SpreadTrain" >> beam.Reshuffle()
            | "TrainNgrams"
            >> beam.FlatMap(count_ngrams, "train", words, *sides, held_out, loser == "eval")
            | "Train" >> beam.CombineGlobally(add_tables)
        )
        return (
            parts
            | "SpreadLoser" >> beam.Reshuffle()
            | "Drop"
            >> beam.FlatMap(
                overlapping, loser, words, *sides, held_out, train,
                self._config.decontaminate_max_documents,
            )
            | beam.combiners.ToList()
        )  # fmt: skip


def add_tables(tables: Iterable[NgramTable]) -> NgramTable:
    """Add up counts; of each n-gram the document with the least digest stays."""
    hashes, counts, references = (np.zeros(0, kind) for kind in ("u8", "u4", "i8"))
    nothing = NgramTable(hashes, counts, hashes, references, 0)
    found = [nothing, *tables]
    hashes, counts, digests, references = (
        np.concatenate([table[i] for table in found]) for i in range(4)
    )
    with_documents = len(references) > 0
    keys = (references, digests, hashes) if with_documents else (hashes,)
    order = np.lexsort(keys)
    hashes = hashes[order]
    first = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1]))[: len(hashes)])
    one = order[first] if with_documents else order[:0]
    return NgramTable(
        hashes[first],
        np.add.reduceat(counts[order], first) if len(first) else counts,
        digests[one],
        references[one],
        sum(table.documents for table in found),
    )


def count_ngrams(
    part: StagedPart,
    split: str,
    ngram_words: int,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    watched: NgramTable | None,
    with_documents: bool,
) -> Iterator[NgramTable]:
    """Yield the n-grams of a part of the split, those of `watched` if it is given."""
    if part.split == split:
        for batch in read_batches(part, ngram_words, parts, dropped):
            yield batch.table(None if watched is None else watched.hashes, with_documents)


def overlapping(
    part: StagedPart,
    split: str,
    ngram_words: int,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    held_out: NgramTable,
    train: NgramTable,
    max_documents: int | str,
) -> Iterator[DroppedGroup]:
    """Yield what a part of the split that gives way loses.

    A document goes for an n-gram that both splits have, in few documents, and that has no word in
    common with one that many have (the last words of a licence and the first of the text are
    boilerplate, too); or if all of its n-grams are in the other split.
    """
    if part.split != split or not len(train.hashes):
        return
    other = train if split == "eval" else held_out
    # What train has of the held-out n-grams is what both have.
    shared = train.hashes
    counts = train.counts.astype(np.int64) + held_out.counts[held_out.find(shared)]
    few = counts <= common_above(train.documents + held_out.documents, max_documents)
    many = shared[~few]
    for batch in read_batches(part, ngram_words, parts, dropped):
        in_both = count_in(batch.shingles, shared)
        all_shared = in_both == np.diff(batch.shingles.first)
        found = []
        for document in np.flatnonzero(in_both).tolist():
            runs = shared_runs(batch.texts[document], ngram_words, shared)
            own = runs.without(many)
            if len(own.hashes) or all_shared[document]:
                found.append((document, own if len(own.hashes) else runs))
        yield from contaminated(batch, found, other)


class SharedRuns(NamedTuple):
    """The n-grams of a text that are among others.

    Attributes:
        hashes: uint64, as they stand.
        first: int64, the first word of each.
        length: Words of each.
    """

    hashes: np.ndarray
    first: np.ndarray
    length: int

    def without(self, many: np.ndarray) -> SharedRuns:
        """Leave out those that have a word in common with one of `many` (ascending)."""
        common = self.first[is_in(self.hashes, many)]
        place = np.searchsorted(common, self.first)
        far = np.full(len(self.first), True)
        for side in (place - 1, place):
            inside = (side >= 0) & (side < len(common))
            near = np.abs(common[side[inside]] - self.first[inside]) < self.length
            far[inside] &= ~near
        return SharedRuns(self.hashes[far], self.first[far], self.length)

    def longest(self) -> tuple[int, int, int]:
        """Return the longest run of words: the place of its first n-gram, first word, words."""
        starts = np.flatnonzero(np.diff(self.first, prepend=-2) != 1)
        sizes = np.diff(np.append(starts, len(self.first)))
        place = int(starts[np.argmax(sizes)])
        return place, int(self.first[place]), int(sizes.max()) + self.length - 1


def shared_runs(text: str, ngram_words: int, wanted: np.ndarray) -> SharedRuns:
    """Return the n-grams of a text that are among `wanted` (ascending)."""
    columns, words = bare_words([text])
    hashes, first = ngrams(columns.hash_spans(words), words, ngram_words)
    hit = is_in(hashes, wanted)
    return SharedRuns(hashes[hit], first[hit], ngram_words)


def contaminated(
    batch: Documents, found: list[tuple[int, SharedRuns]], partners: NgramTable
) -> Iterator[DroppedGroup]:
    """Yield the documents of a batch that go, each with the longest run of words that it shares.

    Args:
        batch: Documents.
        found: Documents, and the n-grams for which they go.
        partners: The documents (or, below NO_COPY, the benchmark texts) that have them.
    """
    if not found:
        return
    kept, runs = [], []
    for _, own in found:
        place, first, words = own.longest()
        kept.append(partners.references[partners.find(own.hashes[place : place + 1])[0]])
        runs.append((first, words))
    yield DroppedGroup(
        CONTAMINATED,
        batch.references[[document for document, _ in found]],
        np.array([len(np.unique(own.hashes)) for _, own in found], np.float64),
        0.0,
        np.array(kept, np.int64),
        np.array(runs, np.int64),
    )


def count_in(shingles: Shingles, ascending: np.ndarray) -> np.ndarray:
    """Count the n-grams of each document that are among the hashes, int64 [documents]."""
    hits = np.concatenate(([0], np.cumsum(is_in(shingles.hashes, ascending), dtype=np.int64)))
    return np.diff(hits[shingles.first])


def read_batches(
    part: StagedPart, ngram_words: int, parts: list[StagedPart], dropped: list[DroppedGroup]
) -> Iterator[Documents]:
    """Yield the documents of a part that are left, in batches."""
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
        if place + 1 == len(places) or len(texts) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            some = places[start : place + 1]
            shingles = shingle(texts, ngram_words, bare=True)
            yield Documents(first + some, rows["digest"][some], texts, shingles)
            texts, size, start = [], 0, place + 1
