"""Removes lines that stand in many documents: licences, navigation, parameter boilerplate.

Two passes: the hashes of all lines are counted by document, in partitions; those that are frequent
are a side input (8 bytes each), and the lines that have them go. A document keeps its other lines.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.curate.normalise import normalise
from components.curate.text_columns import TextColumns
from components.documents import SPLITS

# Shorter lines ("Args:", "Returns:", "}") are structure, however frequent.
MIN_LINE_CHARACTERS = 40

LINES_REMOVED = "boilerplate_lines"

_TEXT = 2


class RemoveBoilerplate(beam.PTransform):
    """{"train": batches, "eval": batches} -> the same without frequent lines, and LINES_REMOVED.

    Args:
        documents: A line that stands in more documents than this is boilerplate.
        partitions: Parts in which lines are counted side by side.
    """

    def __init__(self, documents: int, partitions: int):
        super().__init__()
        self._documents, self._partitions = documents, partitions

    def expand(self, splits: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Counts over both splits, then edits each."""
        frequent = (
            [
                splits[split] | f"Lines[{split}]" >> beam.FlatMap(_lines, self._partitions)
                for split in SPLITS
            ]
            | beam.Flatten()
            | beam.GroupByKey()
            | "Frequent" >> beam.Map(_frequent, self._documents)
            | "Union" >> beam.CombineGlobally(_union)
        )
        edited = {
            split: splits[split]
            | f"Edit[{split}]"
            >> beam.FlatMap(remove_lines, beam.pvalue.AsSingleton(frequent)).with_outputs(
                LINES_REMOVED, main="kept"
            )
            for split in SPLITS
        }
        removed = [edited[split][LINES_REMOVED] for split in SPLITS] | "Removed" >> beam.Flatten()
        return {**{split: edited[split].kept for split in SPLITS}, LINES_REMOVED: removed}


def _columns(texts: Iterable[str]) -> tuple[TextColumns, np.ndarray]:
    """The columns of texts and which of their lines are long enough (bool [lines])."""
    columns = TextColumns(list(texts))
    return columns, columns.lines.length >= MIN_LINE_CHARACTERS


def _texts(batch: pa.RecordBatch) -> list[str]:
    return [normalise(text.decode()) for text in batch.column(_TEXT).to_pylist()]


def _lines(batch: pa.RecordBatch, partitions: int) -> Iterator[tuple[int, np.ndarray]]:
    """The hashes of the lines of each document, each once, by partition of the hash."""
    columns, long_enough = _columns(_texts(batch))
    hashes = columns.hash_spans(columns.lines)[long_enough]
    document = columns.lines.document[long_enough]
    order = np.lexsort((hashes, document))
    hashes, document = hashes[order], document[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (document[1:] != document[:-1])
    hashes = hashes[new]
    target = hashes % np.uint64(partitions)
    for partition in np.unique(target):
        yield int(partition), hashes[target == partition]


def _frequent(item: tuple[int, Iterable[np.ndarray]], documents: int) -> np.ndarray:
    hashes, counts = np.unique(np.concatenate(list(item[1])), return_counts=True)
    return hashes[counts > documents]


def _union(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *arrays]))


def remove_lines(batch: pa.RecordBatch, frequent: np.ndarray) -> Iterator[Any]:
    """The batch with normalised texts, without the lines whose hash is in `frequent`.

    `byte_count` stays what it was: bytes as they came in.
    """
    texts = _texts(batch)
    columns, long_enough = _columns(texts)
    lines = columns.lines
    going = long_enough & np.isin(columns.hash_spans(lines), frequent)
    if going.any():
        for document in np.unique(lines.document[going]).tolist():
            start = columns.first[document]
            text, parts, at = texts[document], [], 0
            for i in np.flatnonzero(going & (lines.document == document)).tolist():
                parts.append(text[at : lines.start[i] - start])
                at = int(lines.end[i] - start)
            texts[document] = normalise("".join([*parts, text[at:]]))
        yield beam.pvalue.TaggedOutput(LINES_REMOVED, (LINES_REMOVED, int(going.sum())))
    columns_out = [batch.column(i) for i in range(batch.num_columns)]
    columns_out[_TEXT] = pa.array([text.encode() for text in texts], pa.large_binary())
    yield pa.RecordBatch.from_arrays(columns_out, schema=batch.schema)
