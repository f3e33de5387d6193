"""Labeled documents for sequence classification: one a row, cut where the row is full.

Documents are not packed with each other. A row is as wide as its bucket when it is read: widths
double from 32 up to sequence_length, so that a step is compiled for a handful of shapes and short
documents cost little padding (components/train/distributed/buckets.py makes the batches).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata

from components.pack.packing import build_rows
from components.pack.row_groups import RowGroups
from components.pack.tokenized import TokenizedDocuments, read_tokenized
from tokenmill.contracts.packed_rows import NO_LABEL, UNKNOWN_LABEL
from tokenmill.errors import TokenmillError
from tokenmill.rows.arrays import Layout, Parts, Rows

_SHOWN = 10


class Labeled(NamedTuple):
    """A shard's documents, laid out.

    Attributes:
        parts: One of each document that is kept.
        rows: A row of each.
        group_rows: Rows of each group, in the order of rows; empty without groups.
        kept_tokens: Tokens of each document that are in its row, int64 [documents].
        reasons: For each reason whether a document was left out for it, bool [documents].
        by_class: Rows of each class, int64 [classes].
    """

    parts: Parts
    rows: Rows
    group_rows: list[int]
    kept_tokens: np.ndarray
    reasons: dict[str, np.ndarray]
    by_class: np.ndarray


def lay_out(
    documents: TokenizedDocuments,
    label_names: Sequence[bytes],
    layout: Layout,
    groups: RowGroups | None,
) -> Labeled:
    """Lay each document with tokens and a known label into a row `CLS tokens SEP`.

    Args:
        documents: Of a shard, in order.
        label_names: The classes, ascending.
        layout: Framed, without overlap.
        groups: Whose rows follow those of the last; None where documents share no weight.
    """
    number = {name: i for i, name in enumerate(label_names)}
    classes = np.array([number.get(label, -1) for label in documents.labels], np.int64)
    has_tokens = documents.token_counts > 0
    has_label = np.array([bool(label) for label in documents.labels], bool)
    reasons = {
        NO_LABEL: has_tokens & ~has_label,
        UNKNOWN_LABEL: has_tokens & has_label & (classes < 0),
    }
    kept = np.flatnonzero(has_tokens & (classes >= 0))
    group_rows: list[int] = []
    if groups is not None:
        kept = kept[np.argsort(groups.of_document[kept], kind="stable")]
        group_rows = np.bincount(groups.of_document[kept], minlength=len(groups.keys)).tolist()
    lengths = np.minimum(documents.token_counts[kept], layout.room(0))
    nothing = np.zeros(len(kept), np.int64)
    parts = Parts(kept, nothing, lengths, nothing, np.arange(len(kept)))
    rows = build_rows(parts, documents.tokens, documents.token_counts, layout)
    kept_tokens = np.zeros(len(classes), np.int64)
    kept_tokens[kept] = lengths
    rows = rows._replace(labels=classes[kept].astype(np.int32))
    by_class = np.bincount(classes[kept], minlength=len(label_names))
    return Labeled(parts, rows, group_rows, kept_tokens, reasons, by_class)


class FindLabels(beam.PTransform):
    """The labels of a split's documents, ascending.

    Args:
        examples_pattern: Files of the training split.
        classes: How many labels there have to be (model.classes).

    Raises:
        TokenmillError: There are more or fewer.
    """

    def __init__(self, examples_pattern: str, classes: int):
        super().__init__()
        self._pattern, self._classes = examples_pattern, classes

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Read the labels: pipeline -> PCollection of one element, a list of bytes."""
        return (
            pipeline
            | "Files" >> fileio.MatchFiles(self._pattern)
            | "Spread" >> beam.Reshuffle()
            | "Labels" >> beam.FlatMap(_labels_of_file)
            | "Distinct" >> beam.Distinct()
            | "ToList" >> beam.combiners.ToList()
            | "Check" >> beam.Map(check_labels, self._classes)
        )


def _labels_of_file(file: FileMetadata) -> Iterator[bytes]:
    labels: set[bytes] = set()
    for documents in read_tokenized(file.path):
        counts = documents.token_counts.tolist()
        labels.update(x for x, n in zip(documents.labels, counts, strict=True) if x and n)
    return iter(sorted(labels))


def check_labels(labels: Iterable[bytes], classes: int) -> list[bytes]:
    """Return the labels in ascending order, after checking them against the model's classes.

    Raises:
        TokenmillError: They are not; the message names both.
    """
    found = sorted(labels)
    if not found:
        raise TokenmillError(
            "no document of the train split has a label.",
            "Set corpus.label_field to the field that holds the class.",
        )
    if len(found) != classes:
        names = ", ".join(label.decode("utf-8", "replace") for label in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        raise TokenmillError(
            f"model.classes = {classes}, but the documents of the train split have {len(found):,} "
            f"label{'s' if len(found) > 1 else ''}: {names}{more}.",
            f"Set model.classes = {len(found)}, or correct corpus.label_field."
            if len(found) > 1
            else "A classifier needs two labels or more; look at corpus.label_field.",
        )
    return found
