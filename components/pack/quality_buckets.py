"""Buckets of a source's documents by their learned score, so that better text is read more often.

Rows of a bucket hold no other text, so that the mixture can weigh them (tokenmill/rows/mixture.py).
The buckets are quantiles of the training split, of about the same tokens each.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata

from components.pack.tokenized import read_tokenized
from tokenmill.errors import TokenmillError

MAX_BUCKETS = 4
"""Buckets of a source at most: each ends in a row that is partly empty, in each shard."""
MIN_BUCKET_ROWS = 16
"""Rows that a bucket has in each shard at least, but for a source that is smaller itself."""

# Scores are counted in bins of this width, so that a source of any size is a small histogram.
_BINS = 1 << 16


class Bucket(NamedTuple):
    """Documents of a source whose scores lie next to each other.

    Attributes:
        first_bin: The lowest bin of scores that is in it.
        mean_score: Mean of its tokens' scores, above 0.
    """

    first_bin: int
    mean_score: float

    @property
    def lowest_score(self) -> float:
        """The score that it begins at."""
        return self.first_bin / _BINS


SourceBuckets = dict[str, list[Bucket]]
"""The buckets of each source, ascending by score."""


def bins_of(scores: np.ndarray) -> np.ndarray:
    """Return the bin of each score from 0 to 1, int64."""
    return np.minimum((scores.astype(np.float64) * _BINS).astype(np.int64), _BINS - 1)


def cut_buckets(bins: np.ndarray, weights: np.ndarray, tokens_of_bucket: int) -> list[Bucket]:
    """Cut a source's scores into buckets of about the same weight.

    Documents of one bin stay together, so that there are fewer buckets where many score the same.

    Args:
        bins: The bins that documents fall into, ascending, int64.
        weights: Tokens of those documents, a document's end counted as one, int64.
        tokens_of_bucket: What a bucket weighs at least, if the source suffices for more than one.
    """
    total = int(weights.sum())
    count = min(MAX_BUCKETS, max(1, total // tokens_of_bucket))
    before = np.cumsum(weights) - weights
    number = (2 * before + weights) * count // (2 * total)
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    sums = np.add.reduceat((2 * bins + 1) * weights, starts)
    return [
        Bucket(int(first), score / (2 * _BINS * weight))
        for first, score, weight in zip(
            bins[starts], sums.tolist(), np.add.reduceat(weights, starts).tolist(), strict=True
        )
    ]


def bucket_numbers(
    sources: Sequence[str], scores: np.ndarray, buckets: SourceBuckets
) -> np.ndarray:
    """Find the bucket of each document, int64 [documents], counted from 0 in its source."""
    bins = bins_of(scores)
    numbers = np.zeros(len(sources), np.int64)
    names = np.array(sources, object)
    for source in sorted(set(sources)):
        mine = names == source
        edges = [bucket.first_bin for bucket in buckets[source]]
        numbers[mine] = np.maximum(0, np.searchsorted(edges, bins[mine], side="right") - 1)
    return numbers


class FindQualityBuckets(beam.PTransform):
    """The buckets of each source, found on the training split.

    Args:
        examples_pattern: Files of the training split.
        tokens_of_bucket: What a bucket holds at least, in tokens.

    Raises:
        TokenmillError: A document has no score.
    """

    def __init__(self, examples_pattern: str, tokens_of_bucket: int):
        super().__init__()
        self._pattern, self._tokens_of_bucket = examples_pattern, tokens_of_bucket

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Read the scores: pipeline -> PCollection of one element, `SourceBuckets`."""
        return (
            pipeline
            | "Files" >> fileio.MatchFiles(self._pattern)
            | "Spread" >> beam.Reshuffle()
            | "Scores" >> beam.FlatMap(_scores_of_file)
            | "Add" >> beam.CombinePerKey(_AddHistograms())
            | "Cut" >> beam.Map(_cut, self._tokens_of_bucket)
            | "ToDict" >> beam.combiners.ToDict()
        )


def _cut(
    histogram_of_source: tuple[str, np.ndarray], tokens_of_bucket: int
) -> tuple[str, list[Bucket]]:
    source, histogram = histogram_of_source
    bins = np.flatnonzero(histogram)
    return source, cut_buckets(bins, histogram[bins], tokens_of_bucket)


def _scores_of_file(file: FileMetadata) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yield each source's bins and the tokens in them, batch by batch."""
    for documents in read_tokenized(file.path):
        check_scores(documents.doc_ids, documents.scores)
        bins, weights = bins_of(documents.scores), documents.token_counts + 1
        names = np.array([source.decode() for source in documents.sources], object)
        for source in sorted(set(names)):
            mine = names == source
            yield source, (bins[mine], weights[mine])


def check_scores(doc_ids: Sequence[bytes], scores: np.ndarray) -> None:
    """Check that each document has a score.

    Raises:
        TokenmillError: One has none.
    """
    missing = np.flatnonzero(scores < 0)
    if len(missing):
        raise TokenmillError(
            f"pack.quality_weighting: document {doc_ids[missing[0]].decode('utf-8', 'replace')} "
            "came without a quality_score.",
            "Delete the outputs of Transform, which an older version wrote, and run again.",
        )


class _AddHistograms(beam.CombineFn):
    """Adds up tokens by bin of score, int64 [_BINS]."""

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(_BINS, np.int64)

    def add_input(
        self, accumulator: np.ndarray, element: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        np.add.at(accumulator, *element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return sum(accumulators, start=self.create_accumulator())

    def extract_output(self, accumulator: np.ndarray) -> np.ndarray:
        return accumulator
