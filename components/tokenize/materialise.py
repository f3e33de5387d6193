"""Applies Transform's graph to the documents, file by file, and writes the token ids.

TFX's executor makes the graph; it would also apply it, but reads and writes record by record in
Python, which costs more than tokenising does (benchmarks/tokens). Here a worker takes a whole
shard: TensorFlow's readers and writers, batches of bounded size, one output file for one input
file with the documents in the same order, so the same bytes in every run.
"""

import itertools
import os
from collections.abc import Callable, Iterator

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft

from components.documents import decode_documents, split_directory, write_tfrecords
from components.tokenize.sampling import Sampler, SamplingSettings

_BATCH_BYTES = 4 << 20
_BATCH_DOCUMENTS = 4096

TokenIds = Callable[[pa.RecordBatch], list[list[int]]]


class MaterialiseSplit(beam.PTransform):
    """Writes one split of documents as tf.Examples with token_ids, doc_id, source, byte_count.

    Args:
        uri: Curated examples.
        output_uri: Transformed examples.
        split: Name of the split.
        transform_uri: Transform's output, whose graph gives the ids.
        model_path: The SentencePiece model.
        sampling: Draw the ids with the model instead (components/tokenize/sampling.py).
    """

    def __init__(
        self,
        uri: str,
        output_uri: str,
        split: str,
        transform_uri: str,
        model_path: str,
        sampling: SamplingSettings | None = None,
    ):
        super().__init__()
        source, target = split_directory(uri, split), split_directory(output_uri, split)
        names = sorted(tf.io.gfile.listdir(source))
        self._files = [
            (
                os.path.join(source, name),
                os.path.join(target, f"transformed_examples-{i:05d}-of-{len(names):05d}.gz"),
            )
            for i, name in enumerate(names)
        ]
        self._fn = _MaterialiseFn(transform_uri, model_path, sampling)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Pipeline -> PCollection of the bytes written per file."""
        return (
            pipeline
            | "Files" >> beam.Create(self._files)
            | "Spread" >> beam.Reshuffle()
            | "Apply" >> beam.ParDo(self._fn)
        )


class _MaterialiseFn(beam.DoFn):
    """(input file, output file) -> bytes written."""

    def __init__(self, transform_uri: str, model_path: str, sampling: SamplingSettings | None):
        self._transform_uri, self._model_path = transform_uri, model_path
        self._sampling = sampling
        self._token_ids: TokenIds | None = None

    def setup(self):
        if self._sampling is None:
            self._token_ids = graph_token_ids(self._transform_uri)
        else:
            with tf.io.gfile.GFile(self._model_path, "rb") as source:
                self._token_ids = Sampler(source.read(), self._sampling).encode_batch

    def process(self, files: tuple[str, str]):
        source, target = files
        token_ids = self._token_ids
        assert token_ids is not None  # setup ran
        yield write_tfrecords(target, _transformed(source, token_ids), gzip=True)


def graph_token_ids(transform_uri: str) -> TokenIds:
    """The function from a batch of documents to token ids that Transform's graph is."""
    layer = tft.TFTransformOutput(transform_uri).transform_features_layer()

    @tf.function(
        input_signature=[tf.TensorSpec([None, 1], tf.string)] * 3
        + [tf.TensorSpec([None, 1], tf.int64)]
    )
    def apply(doc_id, source, text, byte_count):
        features = {"doc_id": doc_id, "source": source, "text": text, "byte_count": byte_count}
        ids = tf.RaggedTensor.from_sparse(layer(features)["token_ids"])
        return ids.flat_values, ids.row_splits

    def token_ids(batch: pa.RecordBatch) -> list[list[int]]:
        columns = [
            tf.constant(column.to_numpy(zero_copy_only=False)[:, None]) for column in batch.columns
        ]
        flat, splits = (tensor.numpy().tolist() for tensor in apply(*columns))
        return [flat[a:b] for a, b in itertools.pairwise(splits)]

    return token_ids


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    """The documents of a shard, in batches bounded in number and bytes."""
    records: list[bytes] = []
    size = 0
    for chunk in tf.data.TFRecordDataset(path, "GZIP").batch(64).as_numpy_iterator():
        for record in chunk.tolist():
            if records and (size + len(record) > _BATCH_BYTES or len(records) == _BATCH_DOCUMENTS):
                yield decode_documents(records)
                records, size = [], 0
            records.append(record)
            size += len(record)
    if records:
        yield decode_documents(records)


def _transformed(path: str, token_ids: TokenIds) -> Iterator[bytes]:
    for batch in _batches(path):
        doc_ids, sources, _, byte_counts = batch.columns
        columns = (doc_ids.to_pylist(), sources.to_pylist(), byte_counts.to_pylist())
        for doc_id, source, byte_count, ids in zip(*columns, token_ids(batch), strict=True):
            example = tf.train.Example()
            feature = example.features.feature
            feature["doc_id"].bytes_list.value.append(doc_id)
            feature["source"].bytes_list.value.append(source)
            feature["byte_count"].int64_list.value.append(byte_count)
            feature["token_ids"].int64_list.value.extend(ids)
            # Sorted by name: tfx-bsl's encoder orders features anew in every process.
            yield example.SerializeToString(deterministic=True)
