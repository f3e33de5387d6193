"""Writes and applies Transform's graph.

The graph is TensorFlow Transform's own, made as TFX's executor makes it when a preprocessing
function has nothing to analyse. TFX itself would not see that here: tf.text's op counts as
stateful, so TFX would trace the function four times more and run a Beam pipeline over the
documents, to find nothing (some 4 seconds).
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

from components.tokenize.preprocessing import TOKENIZER_PATH_KEY, preprocessing_fn
from tokenmill.records.documents import DOCUMENT_FEATURES
from tokenmill.text.chat import chat_tokens

TokenIds = Callable[[pa.RecordBatch], pa.LargeListArray]
"""From a batch of documents to the token ids of each, int64."""
ConversationTokens = Callable[[pa.RecordBatch], "ChatColumns"]
"""From a batch of conversations to their tokens and answers."""


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


class ChatColumns(NamedTuple):
    """Conversations as tokens.

    Attributes:
        ids: Token ids of each, int64 lists.
        answer_spans: Where answers begin and end in it, int64 lists: begin, end, begin, end, ..
    """

    ids: pa.LargeListArray
    answer_spans: pa.LargeListArray


def graph_chat_columns(uri: str, special_tokens: Mapping[str, int]) -> ConversationTokens:
    """Load Transform's graph as a function from a batch of conversations to tokens and answers.

    Args:
        uri: Transform's output.
        special_tokens: Of the run's `ChatFormat`.
    """
    saved = tf.saved_model.load(os.path.join(uri, tft.TFTransformOutput.TRANSFORM_FN_DIR))

    def tokenize(text: tf.Tensor) -> tf.RaggedTensor:
        # Of the columns of a document the graph reads the text only.
        nothing = tf.fill([tf.size(text), 1], "")
        counts = tf.zeros([tf.size(text), 1], tf.int64)
        features = {
            "doc_id": nothing, "source": nothing, "text": text[:, None], "byte_count": counts,
        }  # fmt: skip
        return tf.RaggedTensor.from_sparse(saved.transform_fn(features)["token_ids"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def apply(conversations):
        tokens = chat_tokens(conversations, tokenize, special_tokens)
        return tokens.ids.flat_values, tokens.ids.row_splits, tokens.answers.flat_values

    def columns(batch: pa.RecordBatch) -> ChatColumns:
        conversations = batch.column("messages").to_numpy(zero_copy_only=False)
        flat, splits, answers = (tensor.numpy() for tensor in apply(tf.constant(conversations)))
        bounds, bound_splits = answer_spans(answers > 0, splits)
        return ChatColumns(
            pa.LargeListArray.from_arrays(splits, flat.astype(np.int64)),
            pa.LargeListArray.from_arrays(bound_splits, bounds),
        )

    return columns


def answer_spans(is_answer: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where answers begin and end, counted from the beginning of their conversation.

    Args:
        is_answer: Of the tokens of all conversations, bool.
        splits: Where each conversation begins, and the last ends, int64.

    Returns:
        Begin, end, begin, end, .. of all, int64, and where those of each conversation begin.
    """
    count = len(splits) - 1
    # A slot behind each conversation, so that no answer goes on into the next one.
    padded = np.zeros(len(is_answer) + count + 1, np.int8)
    before = np.repeat(np.arange(count), np.diff(splits))
    padded[np.arange(1, len(is_answer) + 1) + before] = is_answer
    edges = np.flatnonzero(np.diff(padded))
    first = splits + np.arange(count + 1)
    owner = np.searchsorted(first, edges, side="right") - 1
    starts = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=count))))
    return (edges - first[owner]).astype(np.int64), starts.astype(np.int64)


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
