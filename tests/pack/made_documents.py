"""Tokenized documents that a test makes up, one by one."""

import os
import tempfile
from typing import NamedTuple

import numpy as np

from components.pack.packing import build_rows, pack_parts
from components.pack.tokenized import TokenizedDocuments, read_tokenized
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.rows.arrays import Layout


class TokenizedDocument(NamedTuple):
    """A document as Transform leaves it; `token_ids` is int32."""

    doc_id: bytes
    source: bytes
    byte_count: int
    token_ids: np.ndarray
    label: bytes = b""
    language: bytes = b"en"
    answers: tuple[tuple[int, int], ...] = ()
    score: float = -1.0


def in_columns(documents):
    """The documents as `TokenizedDocuments`."""
    ids = [np.zeros(0, np.int32), *(d.token_ids for d in documents)]
    return TokenizedDocuments(
        [d.doc_id for d in documents],
        [d.source for d in documents],
        np.array([d.byte_count for d in documents], np.int64),
        np.array([len(d.token_ids) for d in documents], np.int64),
        np.concatenate(ids).astype(np.int32),
        [d.label for d in documents],
        [d.language for d in documents],
        np.array([span for d in documents for span in d.answers], np.int64).reshape(-1, 2),
        np.array([len(d.answers) for d in documents], np.int64),
        np.array([d.score for d in documents], np.float32),
    )


def decode_tokenized(serialized):
    """Serialized, transformed tf.Examples as the packer reads them from a file."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "documents")
        write_tfrecords(path, serialized, gzip=False)
        return TokenizedDocuments.join(list(read_tokenized(path)))


def pack(documents, sequence_length):
    """Documents (1-D arrays of ids) as a list of `Row`, in causal mode, without context."""
    layout = Layout(sequence_length)
    counts = np.array([len(d) for d in documents], np.int64)
    tokens = np.concatenate([np.zeros(0, np.int32), *documents]).astype(np.int32)
    return build_rows(pack_parts(counts + 1, layout), tokens, counts, layout).split()
