"""Keeps benchmark texts out of train: whoever has a run of n of their words goes.

Every run counts, also one that many documents have: a benchmark is copied often. A text of fewer
words is looked for as a whole, if it has five words and is not a common phrase.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from components.curate.config import CurateConfig
from components.curate.counts import BENCHMARKS, TALLIES
from components.curate.decontaminate import (
    NgramTable,
    add_tables,
    common_above,
    contaminated,
    count_in,
    read_batches,
    shared_runs,
)
from components.curate.deduplicate import NO_COPY, DroppedGroup
from components.curate.near_duplicates import Shingles, bare_words
from tokenmill.records.staging import StagedPart
from tokenmill.text.text_columns import is_in, ngrams

MIN_WHOLE_WORDS = 5
"""A benchmark text of fewer words ("yes") stands in half of all documents, and is not guarded."""


class Benchmarks(NamedTuple):
    """What of the benchmark texts is looked for.

    Attributes:
        table: The hashes of n-grams and of short texts as a whole; its references are below
            NO_COPY and number a text that has each.
        lengths: Numbers of words of the short texts.
        short: uint64, ascending, the short texts, one each.
        counts: How many texts there are, and how many are guarded in which way.
    """

    table: NgramTable
    lengths: tuple[int, ...]
    short: np.ndarray
    counts: dict[str, int]


def read_benchmark_texts(texts: Sequence[str], ngram_words: int) -> Benchmarks:
    """Return what is looked for of benchmark texts."""
    columns, words = bare_words(texts)
    hashes, first = ngrams(columns.hash_spans(words), words, ngram_words)
    found, owners = [hashes], [words.document[first]]
    is_short = (words.count < ngram_words) & (words.count >= MIN_WHOLE_WORDS)
    lengths = tuple(np.unique(words.count[is_short]).tolist())
    for length in lengths:
        hashes, first = ngrams(columns.hash_spans(words), words, length)
        whole = (words.count == length)[words.document[first]]
        found.append(hashes[whole])
        owners.append(words.document[first][whole])
    distinct, place = np.unique(np.concatenate(found), return_index=True)
    short = np.sort(np.concatenate([np.zeros(0, np.uint64), *found[1:]]))
    by_ngrams = int((words.count >= ngram_words).sum())
    counts = {
        "texts": len(texts),
        "by_ngrams": by_ngrams,
        "as_a_whole": int(is_short.sum()),
        "too_short": len(texts) - by_ngrams - int(is_short.sum()),
    }
    numbers = NO_COPY - 1 - np.concatenate(owners)[place]
    table = NgramTable(
        distinct, np.ones(len(place), np.uint32), np.zeros(len(place), np.uint64), numbers, 0
    )
    return Benchmarks(table, lengths, short, counts)


class GuardBenchmarks(beam.PTransform):
    """Parts -> a dict: "dropped", [DroppedGroup] of one element; TALLIES, how texts are guarded.

    Args:
        config: The length of a run of words, and when it is common.
        texts: The benchmark texts.
        parts: All parts, as a side input.
        dropped: The documents that are gone already, as a side input.
    """

    def __init__(
        self,
        config: CurateConfig,
        texts: Sequence[str],
        parts: beam.pvalue.AsSideInput,
        dropped: beam.pvalue.AsSideInput,
    ):
        super().__init__()
        self._config, self._sides = config, (parts, dropped)
        self._benchmarks = read_benchmark_texts(texts, config.decontaminate_ngram_words)

    def expand(self, parts: beam.PCollection) -> dict[str, beam.PCollection]:
        """Count the short texts, then drop what has a run of words or a short text."""
        benchmarks, words = self._benchmarks, self._config.decontaminate_ngram_words
        common = (
            parts
            | "SpreadShort" >> beam.Reshuffle()
            | "CountShort" >> beam.FlatMap(count_short, benchmarks, words, *self._sides)
            | "Short" >> beam.CombineGlobally(add_tables)
            | "Common" >> beam.Map(_common, self._config.decontaminate_max_documents)
        )
        dropped = (
            parts
            | "SpreadTrain" >> beam.Reshuffle()
            | "Guard"
            >> beam.FlatMap(guard, benchmarks, words, *self._sides, beam.pvalue.AsSingleton(common))
            | beam.combiners.ToList()
        )
        lost = beam.pvalue.AsSingleton(dropped)
        return {
            "dropped": dropped,
            TALLIES: common | "Tally" >> beam.FlatMap(_tally, lost, benchmarks),
        }


def short_hits(texts: Sequence[str], benchmarks: Benchmarks) -> Shingles:
    """Return the short benchmark texts that each document has, as sets."""
    columns, words = bare_words(texts)
    hashes = columns.hash_spans(words)
    found = [np.zeros((0, 2), np.uint64)]
    for length in benchmarks.lengths:
        runs, first = ngrams(hashes, words, length)
        hit = is_in(runs, benchmarks.short)
        document = words.document[first[hit]].astype(np.uint64)
        found.append(np.stack([document, runs[hit]], axis=1))
    distinct = np.unique(np.concatenate(found), axis=0)
    counts = np.bincount(distinct[:, 0].astype(np.int64), minlength=len(texts))
    return Shingles(distinct[:, 1], np.concatenate(([0], np.cumsum(counts))))


def count_short(
    part: StagedPart,
    benchmarks: Benchmarks,
    ngram_words: int,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
) -> Iterator[NgramTable]:
    """Yield in how many documents of a part of train the short texts are."""
    if part.split == "train" and len(benchmarks.short):
        for batch in read_batches(part, ngram_words, parts, dropped):
            short = batch._replace(shingles=short_hits(batch.texts, benchmarks))
            yield short.table(with_documents=False)


def guard(
    part: StagedPart,
    benchmarks: Benchmarks,
    ngram_words: int,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    common: np.ndarray,
) -> Iterator[DroppedGroup]:
    """Yield what a part of train loses."""
    if part.split != "train":
        return
    hashes = benchmarks.table.hashes
    looked_for = hashes[~is_in(hashes, common)]
    for batch in read_batches(part, ngram_words, parts, dropped):
        hits = count_in(batch.shingles, looked_for)
        if len(benchmarks.short):
            hits = hits + count_in(short_hits(batch.texts, benchmarks), looked_for)
        found = []
        for document in np.flatnonzero(hits).tolist():
            runs = (
                shared_runs(batch.texts[document], length, looked_for)
                for length in (ngram_words, *benchmarks.lengths)
            )
            found.append((document, next(run for run in runs if len(run.hashes))))
        yield from contaminated(batch, found, benchmarks.table)


def _common(table: NgramTable, max_documents: int | str) -> np.ndarray:
    # Also of few documents ten may have it: a benchmark has to be guarded first of all.
    return table.hashes[table.counts > common_above(table.documents, max_documents, fewest=10)]


def _tally(
    common: np.ndarray, dropped: list[DroppedGroup], benchmarks: Benchmarks
) -> Iterator[tuple[tuple[str, ...], int]]:
    too_common = int(is_in(benchmarks.short, common).sum())
    documents = sum(len(group.references) for group in dropped)
    counts = {**benchmarks.counts, "too_common": too_common, "documents": documents}
    counts["as_a_whole"] -= too_common
    for name, count in counts.items():
        yield (BENCHMARKS, name), count
