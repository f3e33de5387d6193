"""What TFDV takes statistics of: features derived from each document instead of its text.

TFDV counts the distinct values of a string. Of whole documents that is a costly shuffle of the
corpus which says nothing, so `text` and `doc_id` are given to TFDV as plain bytes: presence, number
of values and size are all it computes. What matters is derived from the text in the same pass
(characters, words, language) and marked with TFDV's own VALIDATION_DERIVED: the schema that
SchemaGen infers then has these features for ExampleValidator, and Transform and Evaluator, which
read the documents themselves, leave them out.
"""

from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tokenmill.records.documents import DOCUMENT_FEATURES, ReadDocuments
from tokenmill.text.language import determined, identify
from tokenmill.text.text_columns import word_counts

_DERIVED = ("characters", "words", "language")
_OPAQUE = ("doc_id", "text")
_ORDER = (*DOCUMENT_FEATURES, *_DERIVED)


def describe_documents(batch: pa.RecordBatch, language: bool) -> pa.RecordBatch:
    """Derive the columns that TFDV sees of a batch of documents, one value a document in each.

    Args:
        batch: Documents (DOCUMENT_SCHEMA).
        language: Whether to identify languages, some 70 microseconds a document.

    Returns:
        The documents' columns and characters (Unicode code points), words (as curation counts
        them: tokenmill/text/text_columns.py) and, if asked for, language (ISO 639 code, or "und").
    """
    columns = {name: batch.column(i) for i, name in enumerate(DOCUMENT_FEATURES)}
    texts = columns["text"].cast(pa.large_string())
    columns["characters"] = pc.utf8_length(texts)
    strings = texts.to_pylist()
    columns["words"] = pa.array(word_counts(strings), pa.int64())
    if language:
        columns["language"] = pa.array(_languages(strings), pa.large_binary())
    offsets = pa.array(np.arange(batch.num_rows + 1), pa.int64())
    return pa.RecordBatch.from_arrays(
        [pa.LargeListArray.from_arrays(offsets, column) for column in columns.values()],
        names=list(columns),
    )


def _languages(texts: Sequence[str]) -> list[bytes]:
    return [name.encode() for name in determined(identify(texts))]


def statistics_options() -> tfdv.StatsOptions:
    """Return TFDV's options: nothing is counted of the values of text and doc_id."""
    schema = schema_pb2.Schema()
    for name in _OPAQUE:
        # The domain by which TFDV knows bytes that are no categories (schema_util.py).
        schema.feature.add(name=name, type=schema_pb2.BYTES).image_domain.SetInParent()
    return tfdv.StatsOptions(schema=schema)


def mark_derived(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return a copy in which the features that no document holds say so.

    They are in the order of the columns, in whatever order a runner has combined them.
    """
    marked = statistics_pb2.DatasetFeatureStatisticsList()
    marked.CopyFrom(statistics)
    for dataset in marked.datasets:
        ordered = sorted(dataset.features, key=lambda each: _ORDER.index(each.path.step[0]))
        del dataset.features[:]
        dataset.features.extend(ordered)
        for feature in dataset.features:
            if feature.path.step[0] in _DERIVED:
                feature.validation_derived_source.deriver_name = "tokenmill"
                feature.validation_derived_source.source_path.add().step.append("text")
    return marked


class DocumentStatistics(beam.PTransform):
    """Computes the statistics of one split of an Examples artifact.

    Args:
        uri: The Examples artifact.
        split: "train" or "eval".
        options: TFDV's options, see `statistics_options`.
        language: Whether to identify languages.
    """

    def __init__(self, uri: str, split: str, options: tfdv.StatsOptions, language: bool):
        super().__init__()
        self._uri, self._split = uri, split
        self._options, self._language = options, language

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Compute statistics: pipeline -> PCollection of one DatasetFeatureStatisticsList."""
        return (
            pipeline
            | "Read" >> ReadDocuments(self._uri, self._split)
            | "Describe"
            >> beam.Map(describe_documents, self._language).with_output_types(pa.RecordBatch)
            | "Statistics" >> tfdv.GenerateStatistics(self._options)
            | "MarkDerived" >> beam.Map(mark_derived)
        )
