"""Decontamination: no run of n words of the held-out text, or of a benchmark, stays in train.

Held-out text that shares a run of words with the training text says less about the model than it
seems to. Which side gives way is a choice: dropping the held-out documents costs few tokens and
leaves the harder ones to be judged by; dropping the training documents keeps the held-out sample
as it was drawn. Benchmarks cannot give way, so for them it is always the training documents.

The n-grams of the held-out split and of the benchmarks are a side input (8 bytes each).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.curate.deduplicate import Dropped, without
from components.curate.near_duplicates import Shingles, shingle

CONTAMINATED = "contaminated"
GivesWay = Literal["held-out", "train", "off"]

_TEXT_COLUMN = 3


class Decontaminate(beam.PTransform):
    """{"train": batches, "eval": batches} -> the same, and REJECTED of (batch, [Dropped]).

    Args:
        gives_way: Which split loses documents for overlaps between train and held-out text.
        ngram_words: Length of a run of words.
        benchmarks: Texts that must not occur in train either.
    """

    def __init__(self, gives_way: GivesWay, ngram_words: int, benchmarks: Sequence[str]):
        super().__init__()
        self._gives_way, self._words = gives_way, ngram_words
        self._benchmarks = ngram_set(benchmarks, ngram_words)

    def expand(self, splits: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Filters one of the splits by the n-grams of the other."""
        words, benchmarks = self._words, self._benchmarks
        train, held_out = splits["train"], splits["eval"]
        rejected = []
        if len(benchmarks):
            clean = train | "Benchmarks" >> beam.FlatMap(
                drop_overlaps, words, benchmarks
            ).with_outputs("rejected", main="kept")
            train = clean.kept
            rejected.append(clean.rejected)
        if self._gives_way != "off":
            held_out_ngrams = _union(
                held_out | "HeldOutNgrams" >> beam.Map(_batch_ngrams, words), "HeldOutUnion"
            )
            if self._gives_way == "train":
                clean = train | "DropTrain" >> beam.FlatMap(
                    drop_overlaps, words, beam.pvalue.AsSingleton(held_out_ngrams)
                ).with_outputs("rejected", main="kept")
                train = clean.kept
            else:
                shared = _union(
                    train
                    | "Shared"
                    >> beam.Map(_shared_ngrams, words, beam.pvalue.AsSingleton(held_out_ngrams)),
                    "SharedUnion",
                )
                clean = held_out | "DropHeldOut" >> beam.FlatMap(
                    drop_overlaps, words, beam.pvalue.AsSingleton(shared)
                ).with_outputs("rejected", main="kept")
                held_out = clean.kept
            rejected.append(clean.rejected)
        outputs = {"train": train, "eval": held_out}
        if rejected:
            outputs["rejected"] = rejected | beam.Flatten()
        return outputs


def ngram_set(texts: Sequence[str], ngram_words: int) -> np.ndarray:
    """uint64, ascending and distinct: all n-grams of the texts."""
    return np.unique(shingle(texts, ngram_words).hashes) if texts else np.zeros(0, np.uint64)


def drop_overlaps(batch: pa.RecordBatch, ngram_words: int, forbidden: np.ndarray) -> Iterator[Any]:
    """The documents without a forbidden n-gram; the others, tagged, with how many they had."""
    shingles = _shingles(batch, ngram_words)
    hits = np.add.reduceat(
        np.append(_is_in(shingles.hashes, forbidden), False).astype(np.int64),
        np.minimum(shingles.first[:-1], len(shingles.hashes)),
    )
    hits[np.diff(shingles.first) == 0] = 0  # reduceat gives an empty run its neighbour's value
    dropped = [
        Dropped(int(place), CONTAMINATED, float(hits[place]), 0.0, b"")
        for place in np.flatnonzero(hits)
    ]
    if dropped:
        yield beam.pvalue.TaggedOutput("rejected", (batch, dropped))
    if len(dropped) < batch.num_rows:
        yield without(batch, dropped)


def _shingles(batch: pa.RecordBatch, ngram_words: int) -> Shingles:
    texts = [text.decode() for text in batch.column(_TEXT_COLUMN).to_pylist()]
    return shingle(texts, ngram_words)


def _is_in(hashes: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(hashes), bool)
    place = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
    return ascending[place] == hashes


def _batch_ngrams(batch: pa.RecordBatch, ngram_words: int) -> np.ndarray:
    return np.unique(_shingles(batch, ngram_words).hashes)


def _shared_ngrams(batch: pa.RecordBatch, ngram_words: int, other: np.ndarray) -> np.ndarray:
    hashes = _batch_ngrams(batch, ngram_words)
    return hashes[_is_in(hashes, other)]


def _union(arrays: beam.PCollection, label: str) -> beam.PCollection:
    return arrays | label >> beam.CombineGlobally(_merge)


def _merge(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *arrays]))
