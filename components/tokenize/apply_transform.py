"""Applies Transform's graph to the documents, file by file, and writes the token ids.

TFX's executor would also apply the graph, but reads and writes record by record in Python, which
costs more than tokenizing does (benchmarks/tokens). Here a worker takes a whole
shard: TensorFlow's readers and writers, batches of bounded size, one output file for one input
file with the documents in the same order, so the same bytes in every run. The files are not
compressed: gzip would save a third of the bytes, but take more time than encoding and parsing.
"""

import os
from collections.abc import Callable, Iterator, Mapping

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.tokenize.graph import ChatColumns, graph_chat_columns, graph_token_ids
from components.tokenize.subword_regularization import Sampler, SubwordRegularization
from tokenmill import progress
from tokenmill.records.documents import QUALITY_SCORE, decode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import read_tfrecords, write_tfrecords

TokenColumns = Callable[[pa.RecordBatch], dict[str, pa.LargeListArray]]
"""From a batch of documents to the features that hold their tokens, by name."""

_TOKEN_IDS = "token_ids"

# Each different word of a batch is tokenized once: twice the text, a third more words.
_BATCH_BYTES = 8 << 20
_BATCH_DOCUMENTS = 8192


class ApplyTransform(beam.PTransform):
    """Writes one split of documents as tf.Examples with token_ids, but without their text.

    They keep doc_id, source, byte_count, language and, where documents have one, label and
    quality_score. Those of conversations have answer_spans, too: where answers begin and end.

    Args:
        uri: Curated examples.
        output_uri: Transformed examples.
        split: Name of the split.
        transform_uri: Transform's output, whose graph gives the ids.
        model_path: The SentencePiece model.
        regularization: Draw the ids with the model instead
            (components/tokenize/subword_regularization.py).
        special_tokens: Documents are conversations, written with these tokens; None: texts.
    """

    def __init__(
        self,
        uri: str,
        output_uri: str,
        split: str,
        transform_uri: str,
        model_path: str,
        regularization: SubwordRegularization | None = None,
        special_tokens: Mapping[str, int] | None = None,
    ):
        super().__init__()
        source, target = split_directory(uri, split), split_directory(output_uri, split)
        names = sorted(tf.io.gfile.listdir(source))
        self._files = [
            (
                os.path.join(source, name),
                os.path.join(target, f"transformed_examples-{i:05d}-of-{len(names):05d}"),
            )
            for i, name in enumerate(names)
        ]
        self._fn = _ApplyTransformFn(transform_uri, model_path, regularization, special_tokens)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Write the split: pipeline -> PCollection of one element, its number of tokens."""
        return (
            pipeline
            | "Files" >> beam.Create(self._files)
            | "Spread" >> beam.Reshuffle()
            | "Apply" >> beam.ParDo(self._fn)
            | "Tokens" >> beam.CombineGlobally(sum)
        )


class _ApplyTransformFn(beam.DoFn):
    """Tokenizes an input file into an output file; yields the number of tokens written."""

    def __init__(
        self,
        transform_uri: str,
        model_path: str,
        regularization: SubwordRegularization | None,
        special_tokens: Mapping[str, int] | None,
    ):
        self._transform_uri, self._model_path = transform_uri, model_path
        self._regularization, self._special_tokens = regularization, special_tokens
        self._columns: TokenColumns | None = None

    def setup(self):
        if self._special_tokens is not None:
            chat = graph_chat_columns(self._transform_uri, self._special_tokens)
            self._columns = lambda batch: _of_chat(chat(batch))
        elif self._regularization is None:
            token_ids = graph_token_ids(self._transform_uri)
            self._columns = lambda batch: {_TOKEN_IDS: token_ids(batch)}
        else:
            with tf.io.gfile.GFile(self._model_path, "rb") as source:
                sampler = Sampler(source.read(), self._regularization)
            self._columns = lambda batch: {
                _TOKEN_IDS: pa.array(sampler.encode_batch(batch), pa.large_list(pa.int64()))
            }

    def process(self, files: tuple[str, str]):
        source, target = files
        assert self._columns is not None  # setup ran
        counts: list[int] = []
        write_tfrecords(target, _transformed(source, self._columns, counts), gzip=False)
        yield sum(counts)


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    """Read the documents of a shard in batches bounded in number and bytes."""
    records: list[bytes] = []
    size = 0
    for record in read_tfrecords(path):
        if records and (size + len(record) > _BATCH_BYTES or len(records) == _BATCH_DOCUMENTS):
            progress.read(len(records), size)
            yield decode_documents(records)
            records, size = [], 0
        records.append(record)
        size += len(record)
    if records:
        progress.read(len(records), size)
        yield decode_documents(records)


def _of_chat(columns: ChatColumns) -> dict[str, pa.LargeListArray]:
    return {_TOKEN_IDS: columns.ids, "answer_spans": columns.answer_spans}


def _transformed(path: str, columns_of: TokenColumns, counts: list[int]) -> Iterator[bytes]:
    """Yield the tf.Examples of a shard; append the tokens of each batch to `counts`."""
    encoder = RecordBatchToExamplesEncoder()
    for batch in _batches(path):
        of_tokens = columns_of(batch)
        counts.append(len(of_tokens[_TOKEN_IDS].flatten()))
        singles = np.arange(batch.num_rows + 1, dtype=np.int64)
        labeled = pc.any(pc.greater(pc.binary_length(batch.column("label")), 0)).as_py()
        names = ("byte_count", "doc_id", *(["label"] if labeled else []), "language", "source")
        columns = {
            name: pa.LargeListArray.from_arrays(singles, batch.column(name)) for name in names
        }
        scores = batch.column(QUALITY_SCORE)
        if scores.null_count < batch.num_rows:  # what has no score has an empty list
            ends = np.cumsum(scores.is_valid().to_numpy(zero_copy_only=False), dtype=np.int64)
            columns[QUALITY_SCORE] = pa.LargeListArray.from_arrays(
                np.concatenate(([0], ends)), scores.drop_null()
            )
        columns |= of_tokens
        # Each feature for itself: joined, encoded messages are one message, and this encoder would
        # order the features of one message anew in every process.
        encoded = (
            encoder.encode(pa.RecordBatch.from_arrays([column], [name]))
            for name, column in columns.items()
        )
        for parts in zip(*encoded, strict=True):
            yield b"".join(parts)
