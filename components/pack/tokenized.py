"""Tokenized documents as Transform leaves them, in columns."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import BATCH_DOCUMENTS, QUALITY_SCORE
from tokenmill.rows.arrays import spans


class TokenizedDocuments(NamedTuple):
    """Many documents in columns, which pass through Beam in a tenth of the time.

    Attributes:
        doc_ids: Id of each.
        sources: Source of each.
        byte_counts: Bytes of text of each, int64.
        token_counts: Tokens of each, int64.
        tokens: Ids of all, one document after the other, int32.
        labels: Class of each, empty where it has none.
        languages: Language of each, as curation found it.
        answer_spans: Of conversations where answers begin and end, int64 [spans, 2], one document
            after the other; counted in tokens from the document's beginning.
        span_counts: Answers of each, int64; 0 of what is no conversation.
        scores: Learned quality of each, float32 from 0 to 1; below 0 where it has none.
    """

    doc_ids: list[bytes]
    sources: list[bytes]
    byte_counts: np.ndarray
    token_counts: np.ndarray
    tokens: np.ndarray
    labels: list[bytes]
    languages: list[bytes]
    answer_spans: np.ndarray
    span_counts: np.ndarray
    scores: np.ndarray

    @classmethod
    def join(cls, parts: Sequence["TokenizedDocuments"]) -> "TokenizedDocuments":
        """Join documents that were read in several batches."""
        return cls(
            [i for part in parts for i in part.doc_ids],
            [s for part in parts for s in part.sources],
            np.concatenate([part.byte_counts for part in parts]),
            np.concatenate([part.token_counts for part in parts]),
            np.concatenate([part.tokens for part in parts]),
            [label for part in parts for label in part.labels],
            [language for part in parts for language in part.languages],
            np.concatenate([part.answer_spans for part in parts]),
            np.concatenate([part.span_counts for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def take(self, numbers: np.ndarray) -> "TokenizedDocuments":
        """Return the documents of these numbers, in this order."""
        first = np.cumsum(self.token_counts) - self.token_counts
        counts = self.token_counts[numbers]
        first_span = np.cumsum(self.span_counts) - self.span_counts
        span_counts = self.span_counts[numbers]
        return TokenizedDocuments(
            [self.doc_ids[i] for i in numbers.tolist()],
            [self.sources[i] for i in numbers.tolist()],
            self.byte_counts[numbers],
            counts,
            self.tokens[spans(first[numbers], counts)],
            [self.labels[i] for i in numbers.tolist()],
            [self.languages[i] for i in numbers.tolist()],
            self.answer_spans[spans(first_span[numbers], span_counts)],
            span_counts,
            self.scores[numbers],
        )


_FEATURES = {
    "doc_id": tf.io.FixedLenFeature([], tf.string),
    "source": tf.io.FixedLenFeature([], tf.string),
    "byte_count": tf.io.FixedLenFeature([], tf.int64),
    "token_ids": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    "label": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "language": tf.io.FixedLenFeature([], tf.string),
    "answer_spans": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    QUALITY_SCORE: tf.io.FixedLenFeature([], tf.float32, default_value=-1.0),
}


def _parse(serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Parse tf.Examples, string [documents], into the columns of TokenizedDocuments."""
    parsed = tf.io.parse_example(serialized, _FEATURES)
    ids = parsed["token_ids"]
    return (
        parsed["doc_id"],
        parsed["source"],
        parsed["byte_count"],
        ids.row_lengths(),
        tf.cast(ids.flat_values, tf.int32),
        parsed["label"],
        parsed["language"],
        tf.reshape(parsed["answer_spans"].flat_values, [-1, 2]),
        parsed["answer_spans"].row_lengths() // 2,
        parsed[QUALITY_SCORE],
    )


def _columns(arrays: Sequence[np.ndarray]) -> TokenizedDocuments:
    doc_ids, sources, byte_counts, token_counts, tokens, labels, languages, *others = arrays
    return TokenizedDocuments(
        doc_ids.tolist(),
        sources.tolist(),
        byte_counts,
        token_counts,
        tokens,
        labels.tolist(),
        languages.tolist(),
        *others,
    )


def read_tokenized(path: str) -> Iterator[TokenizedDocuments]:
    """Read the documents of a file of Transform in batches; TensorFlow reads and parses in C++.

    Raises:
        TokenmillError: The file is damaged, or its records are no transformed documents.
    """
    dataset = tf.data.TFRecordDataset(path).batch(BATCH_DOCUMENTS).map(_parse)
    try:
        for arrays in dataset.as_numpy_iterator():
            documents = _columns(arrays)
            progress.read(len(documents.doc_ids), int(documents.byte_counts.sum()))
            yield documents
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise TokenmillError(
            f"{path}: {error.message.splitlines()[0]}.",
            "Delete the artifact and run again: Transform writes it anew.",
        ) from error
