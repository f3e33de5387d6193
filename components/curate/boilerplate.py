"""Removes lines that stand in many documents: licences, navigation, parameter boilerplate.

Two passes: the hashes of all lines are written, once a document, and counted by ranges of the hash;
those that are frequent are a side input (8 bytes each), and the lines that have them go. A document
keeps its other lines.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from components.curate.rules.lines import Removed, take_out
from tokenmill.records.documents import DocumentFile, read_documents
from tokenmill.records.keys import stable_hash
from tokenmill.records.sorted_hashes import read_hash_range, write_sorted_hashes
from tokenmill.text.normalize import normalize
from tokenmill.text.text_columns import TextColumns

# Shorter lines ("Args:", "Returns:", "}") are structure, however frequent.
MIN_LINE_CHARACTERS = 40

LINES_REMOVED = "boilerplate_lines"

_TEXT = 2
_FILE_LINES = 1 << 18  # in one file; 12 bytes each


def write_line_hashes(file: DocumentFile, directory: str) -> Iterator[str]:
    """Write the hashes of the lines of each document of a file; yield the paths written."""
    name = os.path.join(directory, f"{file.split}-{stable_hash(file.path.encode()):016x}")
    pending: list[np.ndarray] = []
    count = number = 0
    for batch in read_documents(file.path):
        pending.append(line_hashes(_texts(batch)))
        count += len(pending[-1])
        if count >= _FILE_LINES:
            yield _write(name, number, pending)
            pending, count, number = [], 0, number + 1
    if pending:
        yield _write(name, number, pending)


def frequent_lines(
    hash_range: int, paths: list[str], hash_ranges: int, documents: int
) -> np.ndarray:
    """Return the hashes in one range that more than so many documents have, uint64, ascending."""
    hashes_of_files = [read_hash_range(path, hash_range, hash_ranges) for path in paths]
    hashes, counts = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *hashes_of_files]), return_counts=True
    )
    return hashes[counts > documents]


def _write(name: str, number: int, pending: list[np.ndarray]) -> str:
    path = f"{name}-{number:05d}.lines"
    write_sorted_hashes(path, np.concatenate(pending))
    return path


def _columns(texts: Iterable[str]) -> tuple[TextColumns, np.ndarray]:
    """Return the columns of texts, and which of their lines are long enough (bool [lines])."""
    columns = TextColumns(list(texts))
    return columns, columns.lines.length >= MIN_LINE_CHARACTERS


def _texts(batch: pa.RecordBatch) -> list[str]:
    return [normalize(text.decode()) for text in batch.column(_TEXT).to_pylist()]


def line_hashes(texts: list[str]) -> np.ndarray:
    """Return the hashes (uint64) of the lines that are long enough, once for each document."""
    columns, long_enough = _columns(texts)
    hashes = columns.hash_spans(columns.lines)[long_enough]
    document = columns.lines.document[long_enough]
    order = np.lexsort((hashes, document))
    hashes, document = hashes[order], document[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (document[1:] != document[:-1])
    return hashes[new]


def remove_frequent(batch: pa.RecordBatch, frequent: np.ndarray) -> tuple[pa.RecordBatch, Removed]:
    """Return the batch with normalized texts, without the lines whose hash is in `frequent`.

    `byte_count` stays what it was: bytes as they came in.
    """
    texts = _texts(batch)
    columns, long_enough = _columns(texts)
    lines = columns.lines
    going = long_enough & np.isin(columns.hash_spans(lines), frequent)
    removed = take_out(columns, np.where(going, 0, -1), (LINES_REMOVED,))
    columns_out = [batch.column(i) for i in range(batch.num_columns)]
    columns_out[_TEXT] = pa.array([text.encode() for text in removed.texts], pa.large_binary())
    return pa.RecordBatch.from_arrays(columns_out, schema=batch.schema), removed
