"""Export of the ids-model as TensorFlow Lite (LiteRT), with the tokenizer beside it.

A .tflite file takes ids (int32 [1, context]: begin, the tokens, then zeros) and gives logits
(float32 [1, context, vocabulary]); no token looks ahead, so what stands right does no harm.
SentencePiece has no TF Lite op, so the text is encoded outside. Converting a Keras 3 model or a
SavedModel aborts the process; the graph is frozen first.
"""

import os
import shutil
import time
from typing import Any

import numpy as np

from serving.saved_model import context_length, newest_version
from tokenmill.contracts.base import Part, key
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.files import write_bytes
from tokenmill.machine import vcpus
from tokenmill.text.tokenizers.compiled import is_compiled

_CHECKED_TEXT = "Returns the sum of the elements of a tensor over an axis."


class TfliteFile(Part):
    """File that was written; what a check measured is absent without one."""

    path: str = key("Path of the file.")
    bytes: int = key("Size of the file.")
    latency_ms: float | None = key("Median latency of a whole context, milliseconds.", default=None)
    tokens: int | None = key("Tokens of the context.", default=None)
    largest_difference: float | None = key(
        "Largest difference of its logits from the SavedModel's.", default=None
    )
    same_next_token: float | None = key(
        "Share of positions at which both choose the same next token.", default=None
    )


def export_tflite(model: str, directory: str, check: bool) -> dict[str, TfliteFile]:
    """Write model-float16.tflite, model-int8.tflite and tokenizer.model.

    Args:
        model: A SavedModel, or the base directory of versions.
        directory: Directory to write to; made if it is not there.
        check: Whether to run each file and compare its logits with the SavedModel's.

    Returns:
        The files by kind of weights: float16 and int8.

    Raises:
        TokenmillError: There is no model, or it has no `logits_ids` signature.
    """
    path = newest_version(model)
    with open(os.path.join(path, TOKENIZER_PATH), "rb") as source:
        if is_compiled(source.read()):
            raise TokenmillError(
                f"{path} has an imported tokenizer, whose ids only TensorFlow makes: beside a "
                ".tflite file there would be nothing to make them with.",
                "Serve it with: tokenmill serve; for other runtimes: tokenmill export hf",
            )
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    loaded = tf.saved_model.load(path)
    if "logits_ids" not in loaded.signatures:
        shape = read_served_model(path).model_shape
        if shape.head != "lm":
            raise TokenmillError(
                f"{path} is no model that continues text (its head is {shape.head}): it has no "
                "logits of next tokens to export.",
                "Export a model of train.task = causal-lm; serve this one with: tokenmill serve",
            )
        raise TokenmillError(
            f"{path} has no signature logits_ids.", "Push it anew with this version of tokenmill."
        )
    length = context_length(path)

    @tf.function(input_signature=[tf.TensorSpec([1, length], tf.int32, name="token_ids")])
    def logits(token_ids):
        return loaded.signatures["logits_ids"](token_ids=token_ids)["logits"]

    frozen = convert_variables_to_constants_v2(logits.get_concrete_function())
    os.makedirs(directory, exist_ok=True)
    files = {}
    for name in ("float16", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], loaded)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
        target = os.path.join(directory, f"model-{name}.tflite")
        write_bytes(target, content)
        measured = _compare(tf, loaded, target, path) if check else {}
        files[name] = TfliteFile(path=target, bytes=len(content), **measured)
    shutil.copyfile(os.path.join(path, TOKENIZER_PATH), os.path.join(directory, "tokenizer.model"))
    return files


def _compare(tf: Any, loaded: Any, target: str, path: str) -> dict[str, Any]:
    """Run a file on a text; return what a check measures, by key of TfliteFile."""
    import sentencepiece
    from ai_edge_litert.interpreter import Interpreter

    processor = sentencepiece.SentencePieceProcessor(model_file=os.path.join(path, TOKENIZER_PATH))
    length = context_length(path)
    ids = np.array([([2] + processor.encode(_CHECKED_TEXT) * length)[:length]], np.int32)
    expected = loaded.signatures["logits_ids"](token_ids=tf.constant(ids))["logits"].numpy()
    interpreter = Interpreter(target, num_threads=vcpus())
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.allocate_tensors()
    times = []
    for _ in range(10):
        started = time.perf_counter()
        interpreter.set_tensor(given["index"], ids)
        interpreter.invoke()
        logits = interpreter.get_tensor(made["index"])
        times.append(time.perf_counter() - started)
    return {
        "latency_ms": float(np.median(times) * 1e3),
        "tokens": length,
        "largest_difference": float(np.abs(logits - expected).max()),
        "same_next_token": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
    }
