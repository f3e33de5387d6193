"""The choice of the next token, for each row of a batch by its own settings and seed."""

from typing import NamedTuple

import tensorflow as tf

from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds


class SamplerConfig(NamedTuple):
    """Settings of the sampler for a batch; each of shape [batch].

    Attributes:
        temperature: float32; 0 takes the likeliest token.
        top_k: int32; only the k likeliest tokens (and those as likely as the k-th); 0 takes all.
        top_p: float32; only the fewest likeliest tokens that together have this probability
            (nucleus sampling, Holtzman et al. 2020); 1 takes all.
        seed: int32; the same seed gives the same text, whatever else is in the batch.
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    seed: tf.Tensor


def check_sampling(sampling: SamplerConfig) -> list[tf.Operation]:
    """Make assertions that fail with INVALID_ARGUMENT and say which setting is wrong."""
    temperature = sampling.temperature
    return [
        require(
            (temperature >= 0) & (temperature < float("inf")),
            "temperature must be a finite number of at least 0",
        ),
        require(sampling.top_k >= 0, "top_k must be at least 0 (0 takes all tokens)"),
        require(
            (sampling.top_p > 0) & (sampling.top_p <= 1), "top_p must be above 0 and at most 1"
        ),
    ]


def require(conditions: tf.Tensor, message: str) -> tf.Operation:
    """Make an operation that fails with `message` unless all conditions hold."""
    return tf.debugging.Assert(tf.reduce_all(conditions), [message])


def uniforms(seed: tf.Tensor, steps: int) -> tf.Tensor:
    """Draw float32 [batch, steps] in [0, 1); row i depends on seed i only.

    `steps` is fixed for a model, so that a request's numbers do not depend on its neighbors.
    """
    return tf.map_fn(
        lambda one: tf.random.stateless_uniform([steps], seed=tf.stack([one, 0])),
        seed,
        fn_output_signature=tf.TensorSpec([steps], tf.float32),
    )


def choose(
    logits: tf.Tensor,
    sampling: SamplerConfig,
    uniform: tf.Tensor,
    control_ids: ControlIds = TOKENMILL_CONTROL_IDS,
) -> tf.Tensor:
    """Choose a token for each row: float32 [batch, V] and [batch] in [0, 1) -> int32 [batch].

    Inverse transform sampling in the vocabulary's order. Padding, unknown and begin are never
    chosen: they are no text.
    """
    vocabulary = tf.shape(logits)[1]
    never = control_ids.never_generated
    if never:
        control = tf.reduce_max(tf.one_hot(never, vocabulary), axis=0)
        logits = tf.where(control > 0, -1e9, logits)
    likeliest = tf.argmax(logits, -1, tf.int32)
    samples = sampling.temperature > 0

    def sample():
        scaled = logits / tf.where(samples, sampling.temperature, 1.0)[:, None]
        filtered = (sampling.top_k > 0) | (sampling.top_p < 1.0)
        kept = tf.cond(
            tf.reduce_any(filtered),
            lambda: tf.where(scaled >= _least_kept(scaled, sampling)[:, None], scaled, -1e9),
            lambda: scaled,
        )
        cumulated = tf.cumsum(tf.nn.softmax(kept), axis=-1)
        target = (uniform * cumulated[:, -1])[:, None]
        drawn = tf.reduce_sum(tf.cast(cumulated <= target, tf.int32), axis=-1)
        return tf.where(samples, tf.minimum(drawn, vocabulary - 1), likeliest)

    return tf.cond(tf.reduce_any(samples), sample, lambda: likeliest)


def _least_kept(scaled: tf.Tensor, sampling: SamplerConfig) -> tf.Tensor:
    """Return the least logit of each row that top_k and top_p let through, float32 [batch]."""
    vocabulary = tf.shape(scaled)[1]
    ordered = tf.sort(scaled, direction="DESCENDING")
    k = tf.where(sampling.top_k > 0, tf.minimum(sampling.top_k, vocabulary), vocabulary)
    rank = tf.range(vocabulary)[None]
    in_k = tf.where(rank < k[:, None], ordered, -1e9)
    probabilities = tf.nn.softmax(in_k)
    before = tf.cumsum(probabilities, axis=-1, exclusive=True)
    # The likeliest is always in; another is if those before it do not yet have top_p.
    kept = (rank < k[:, None]) & ((before < sampling.top_p[:, None]) | (rank == 0))
    all_kept = (sampling.top_k == 0) & (sampling.top_p >= 1.0)
    least = tf.reduce_min(tf.where(kept, ordered, ordered.dtype.max), axis=-1)
    return tf.where(all_kept, ordered.dtype.min, least)
