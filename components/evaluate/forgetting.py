"""What a model has forgotten: the base model and the trained one on the same general text."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

from tokenmill.checkpoints.base_model import load_start_weights
from tokenmill.contracts.cost_report import FORGETTING_MEASURES, Forgetting, Metrics
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.export.decoder_signatures import ServedDecoder
from tokenmill.export.encoder_signatures import ServedEncoder
from tokenmill.export.saved_model import EVALUATE_TEXTS
from tokenmill.export.text_masking import TextMasking
from tokenmill.model.build import Encoder, build_model
from tokenmill.records.documents import read_batches
from tokenmill.text.tokenizers.load import read_tokenizer

_BATCH_DOCUMENTS, _BATCH_BYTES = 32, 1 << 20
_SUMS = ("nll_sum", "correct_count", "token_count")

_Evaluate = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
"""From documents, serialized, string [batch], to sums of each: what `evaluate` returns."""


def measure_forgetting(
    saved_model: str, base_model: str, general_text: str, masking: TextMasking | None
) -> Forgetting:
    """Evaluate a model and the one that its training started from, one after the other.

    Both compute what the `evaluate` signature does: documents are tokenized by the run's own
    tokenizer and cut into rows as the held-out ones are.

    Args:
        saved_model: The trained model, as it was exported; no classifier.
        base_model: Directory of the weights that it started from.
        general_text: TFRecord file of documents.
        masking: What is hidden of a text, of masked-lm; None in causal-lm.

    Raises:
        TokenmillError: The base model is no longer there, or is another one.
    """
    trained = tf.saved_model.load(saved_model)
    of_texts = EVALUATE_TEXTS if EVALUATE_TEXTS in trained.signatures else "evaluate"
    prefix = "" if masking is None else "masked_"
    base = _base(saved_model, base_model, trained, masking)
    documents = size = 0
    for batch in read_batches(general_text, _BATCH_DOCUMENTS, _BATCH_BYTES):
        documents += len(batch)
        size += int(tf.reduce_sum(tf.strings.length(_texts(tf.constant(batch)))))
    return Forgetting(
        documents=documents,
        bytes=size,
        before={} if base is None else _metrics(base, general_text, prefix, size),
        after=_metrics(
            lambda examples: trained.signatures[of_texts](examples=examples),
            general_text,
            prefix,
            size,
        ),
    )


def forgot_too_much(forgetting: Forgetting, limit: float | None) -> list[str]:
    """Return a sentence if the model became worse on the general text than a limit allows.

    Args:
        forgetting: What was measured.
        limit: By what share the task's measure may grow; None for any.
    """
    increase = forgetting.increase
    if limit is None or increase is None or increase <= limit:
        return []
    name = next(name for name in FORGETTING_MEASURES if name in forgetting.after)
    return [
        f"{name} is {forgetting.after[name]:.4g} on the general text, {increase:.1%} above the "
        f"base model's {forgetting.before[name]:.4g}, wanted at most evaluate.max_forgetting = "
        f"{limit:g}. Train fewer steps, at a lower learning rate or with train.lora_rank, or mix "
        "general text into the input"
    ]


def _base(
    saved_model: str, base_model: str, trained: Any, masking: TextMasking | None
) -> _Evaluate | None:
    """Return the base model's evaluation; None if it lacks the head, which would be random."""
    shape = read_served_model(saved_model).model_shape
    tokenizer_path = os.path.join(saved_model, TOKENIZER_PATH)
    model = build_model(shape, seed=0)
    if load_start_weights(model, base_model, tokenizer_path):
        return None
    tokenizer = read_tokenizer(tokenizer_path)
    tokenize, control_ids = trained._tokenize, tokenizer.control_ids
    served: ServedDecoder = (
        ServedEncoder(model, tokenize, "float32", masking, None, control_ids, tokenizer.vocab_size)
        if isinstance(model, Encoder)
        else ServedDecoder(model, tokenize, "float32", control_ids, tokenizer.vocab_size)
    )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def evaluate(examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return served.evaluate(tokenize(_texts(examples)))

    return evaluate


def _texts(examples: tf.Tensor) -> tf.Tensor:
    return tf.io.parse_example(examples, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]


def _metrics(evaluate: _Evaluate, path: str, prefix: str, size: int) -> Metrics:
    """Return metrics by the Evaluator's names; none where there was no token to guess."""
    sums = dict.fromkeys(_SUMS, 0.0)
    for batch in read_batches(path, _BATCH_DOCUMENTS, _BATCH_BYTES):
        found = evaluate(tf.constant(batch))
        for name in _SUMS:
            sums[name] += float(tf.reduce_sum(tf.cast(found[name], tf.float64)))
    tokens = sums["token_count"]
    if not tokens:
        return {}
    metrics = {
        f"{prefix}perplexity": math.exp(min(sums["nll_sum"] / tokens, 700.0)),
        f"{prefix}token_accuracy": sums["correct_count"] / tokens,
        "evaluated_tokens": tokens,
    }
    if not prefix:
        metrics["bits_per_byte"] = sums["nll_sum"] / math.log(2) / size
    return metrics
