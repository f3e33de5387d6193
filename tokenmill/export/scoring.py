"""Sums of loss, hits and calibration over scored rows; TensorFlow ops, so they can be served."""

import tensorflow as tf

CALIBRATION_BINS = 15

SCORES = (
    "nll_sum",
    "correct_count",
    "top5_count",
    "calibration_count",
    "calibration_confidence",
    "calibration_correct",
)


def score_rows(
    logits: tf.Tensor, targets: tf.Tensor, used: tf.Tensor, answers: int | None = None
) -> dict[str, tf.Tensor]:
    """Sum loss, hits and calibration over the targets of each row.

    Args:
        logits: float32 [rows, length, vocabulary].
        targets: int32 [rows, length].
        used: int32 [rows, length], 1 where a target counts.
        answers: How many of the vocabulary's first ids can be guessed; None for all.

    Returns:
        float32 sums by name: `nll_sum` (nats), `correct_count` and `top5_count` (targets that are
        the likeliest token, or among the five likeliest), each [rows]; and by the probability of
        the likeliest token, in bins of equal width, `calibration_count`, `calibration_confidence`
        and `calibration_correct`, each [rows, CALIBRATION_BINS] (Guo et al. 2017, section 2).
    """
    weights = tf.cast(used, tf.float32)
    log_total = tf.reduce_logsumexp(logits, -1)
    logits = logits if answers is None else logits[..., :answers]
    guess = tf.argmax(logits, -1, tf.int32)
    right = tf.cast(guess == targets, tf.float32) * weights
    its_logit = tf.gather(logits, targets, batch_dims=2)
    nll = log_total - its_logit
    # Better ones counted, equal ones by their place, as argmax does: ties are not all in the top 5.
    above = logits > its_logit[..., None]
    tied_before = (logits == its_logit[..., None]) & (
        tf.range(tf.shape(logits)[-1]) < targets[..., None]
    )
    rank = tf.reduce_sum(tf.cast(above | tied_before, tf.int32), -1)
    top5 = tf.cast(rank < 5, tf.float32) * weights
    confidence = tf.exp(tf.reduce_max(logits, -1) - log_total)
    place = tf.cast(confidence * CALIBRATION_BINS, tf.int32)
    bins = tf.one_hot(tf.minimum(place, CALIBRATION_BINS - 1), CALIBRATION_BINS)
    return {
        "nll_sum": tf.reduce_sum(nll * weights, -1),
        "correct_count": tf.reduce_sum(right, -1),
        "top5_count": tf.reduce_sum(top5, -1),
        "calibration_count": tf.einsum("rl,rlb->rb", weights, bins),
        "calibration_confidence": tf.einsum("rl,rlb->rb", confidence * weights, bins),
        "calibration_correct": tf.einsum("rl,rlb->rb", right, bins),
    }
