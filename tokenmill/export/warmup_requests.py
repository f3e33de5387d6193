"""Requests that a server replays when it loads a model, so that no user waits for the first one.

TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`: a TFRecord file of PredictionLog
(https://www.tensorflow.org/tfx/serving/saved_model_warmup).
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tokenmill.export.step_signatures import cache_names
from tokenmill.model.shape import ModelShape
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.text.chat_template import MARK

WARMUP_NAME = "tf_serving_warmup_requests"
_TEXT = "A few words to begin with. "


def write_warmup_requests(directory: str, shape: ModelShape, signatures: set[str]) -> None:
    """Write one record for each signature and size that users ask for."""
    records = (
        prediction_log_pb2.PredictionLog(
            predict_log=prediction_log_pb2.PredictLog(
                request=predict_request("default", signature, inputs)
            )
        ).SerializeToString(deterministic=True)
        for signature, inputs in _requests(shape)
        if signature in signatures
    )
    write_tfrecords(os.path.join(directory, WARMUP_NAME), records, gzip=False)


def predict_request(
    model: str, signature: str, inputs: Mapping[str, Any]
) -> predict_pb2.PredictRequest:
    """Make a PredictRequest; `inputs` are what `tf.constant` takes."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def _requests(shape: ModelShape) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    new = min(8, shape.sequence_length - 1)
    several = [_TEXT, _TEXT * 10, ""]
    ids = tf.constant([[4, 5, 6]], tf.int32)
    for texts in ([_TEXT], several):
        for signature in ("serving_default", "score", "embed", "classify"):
            yield signature, {"text": tf.constant(texts)}
    for texts, temperature in (([_TEXT], 0.0), (several, 1.0)):
        options = _options(len(texts), new, temperature)
        yield "generate", {"text": tf.constant(texts), **options}
    prompt = tf.constant([f"{MARK}0{_TEXT}"])
    yield "chat", {"prompt": prompt, **_options(1, new, 0.0)}
    for signature in (
        *("score_ids", "embed_ids", "classify_ids"),
        *("prefill_ids", "log_probabilities_ids"),
    ):
        yield signature, {"token_ids": ids}
    yield "generate_ids", {"token_ids": ids, **_options(1, new, 1.0)}
    cache = tf.zeros([1, shape.key_value_heads, 3, shape.head_width])
    caches = dict.fromkeys(cache_names(shape.layers), cache)
    yield "decode_ids", {"token_ids": ids[0, :1], "positions": tf.constant([3]), **caches}
    sampling = _options(1, new, 1.0)
    del sampling["max_new_tokens"], sampling["truncate_prompt"]
    logits = tf.zeros([1, shape.vocab_size])
    yield "sample", {"logits": logits, "step": tf.constant([0]), **sampling}


def _options(rows: int, new: int, temperature: float) -> dict[str, tf.Tensor]:
    """Return options for each row.

    With batching, TensorFlow Serving takes no inputs of one row beside others of several.
    """
    return {
        "max_new_tokens": tf.fill([rows], new),
        "temperature": tf.fill([rows], temperature),
        "top_k": tf.fill([rows], 40),
        "top_p": tf.fill([rows], 0.95),
        "seed": tf.zeros([rows], tf.int32),
        "truncate_prompt": tf.fill([rows], True),
    }
