"""Writes and applies Transform's graph.

The graph is TensorFlow Transform's own, made as TFX's executor makes it when a preprocessing
function has nothing to analyse. TFX itself would not see that here: tf.text's op counts as
stateful, so TFX would trace the function four times more and run a Beam pipeline over the
documents, to find nothing (some 4 seconds).
"""

import functools
import os
from collections.abc import Callable

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

from components.tokenize.preprocessing import TOKENIZER_PATH_KEY, preprocessing_fn
from tokenmill.records.documents import DOCUMENT_FEATURES

TokenIds = Callable[[pa.RecordBatch], pa.LargeListArray]
"""From a batch of documents to the token ids of each, int64."""


def write_graph(schema: schema_pb2.Schema, model_path: str, uri: str) -> None:
    """Trace the preprocessing function and write a TransformGraph artifact.

    Args:
        schema: Of the documents: dense features of shape [1].
        model_path: The SentencePiece model, which becomes part of the graph.
        uri: The artifact.
    """
    spec = schema_utils.schema_as_feature_spec(schema).feature_spec
    types = {name: tf.TensorSpec([None, *f.shape], f.dtype, name) for name, f in spec.items()}
    metadata_io.write_metadata(
        dataset_metadata.DatasetMetadata(schema),
        os.path.join(uri, tft.TFTransformOutput.RAW_METADATA_DIR),
    )
    function = functools.partial(preprocessing_fn, custom_config={TOKENIZER_PATH_KEY: model_path})
    impl_helper.analyze_in_place(function, False, spec, types, uri)


@functools.lru_cache(maxsize=1)
def graph_token_ids(uri: str) -> TokenIds:
    """Load Transform's graph as a function from a batch of documents to token ids."""
    # Not TFTransformOutput.transform_features_layer: it imports Keras, for seconds.
    saved = tf.saved_model.load(os.path.join(uri, tft.TFTransformOutput.TRANSFORM_FN_DIR))

    @tf.function(
        input_signature=[tf.TensorSpec([None, 1], tf.string)] * 3
        + [tf.TensorSpec([None, 1], tf.int64)]
    )
    def apply(doc_id, source, text, byte_count):
        features = {"doc_id": doc_id, "source": source, "text": text, "byte_count": byte_count}
        ids = tf.RaggedTensor.from_sparse(saved.transform_fn(features)["token_ids"])
        return ids.flat_values, ids.row_splits

    def token_ids(batch: pa.RecordBatch) -> pa.LargeListArray:
        columns = [
            tf.constant(batch.column(name).to_numpy(zero_copy_only=False)[:, None])
            for name in DOCUMENT_FEATURES
        ]
        flat, splits = (tensor.numpy() for tensor in apply(*columns))
        return pa.LargeListArray.from_arrays(splits, flat)

    return token_ids
