"""Cross-entropy without a full copy of the logits.

The logits of a batch are the largest tensor of training: rows times vocabulary, in float32, with a
gradient of the same size. Here a chunk of rows makes its logits, their part of the loss and of the
gradients at once, and is forgotten. The products are those of the plain computation; none is
done twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tokenmill.model.lora import trains_head

# A chunk has at least so many rows, and there are at most so many chunks.
_MIN_CHUNK_ROWS, _MAX_CHUNKS = 512, 16
# Well above where float32 loses digits, 1.2e-38.
_LEAST_PROBABILITY = 1e-30


class LossSums(NamedTuple):
    """Sums over targets, float32 scalars.

    Attributes:
        objective: What training differentiates: nll, the z-loss, and what balances experts.
        nll: Negative log-likelihood in nats; carries no gradient.
        weight: Targets counted.
    """

    objective: tf.Tensor
    nll: tf.Tensor
    weight: tf.Tensor


def cross_entropy_sums(
    features_ND: tf.Tensor,
    table_VD: tf.Tensor,
    bias_V: tf.Tensor | None,
    targets_N: tf.Tensor,
    weights_N: tf.Tensor,
    z_loss: float = 0.0,
    trains_table: bool = True,
) -> LossSums:
    """Sum the softmax cross-entropy of the logits features @ table.T + bias.

    Args:
        features_ND: Of the compute dtype, [N, D].
        table_VD: Output matrix [V, D] in the weights' dtype.
        bias_V: Output bias [V], or None.
        targets_N: int32 [N].
        weights_N: float32 [N]; 0 leaves a row out.
        z_loss: Weight of the squared log-partition (Chowdhery et al. 2022, PaLM, sec. 5), which
            keeps logits from drifting; 0 for none.
        trains_table: Whether table and bias need gradients; frozen ones save a product.
    """
    dtype = features_ND.dtype
    rows = features_ND.shape[0]
    bounds: list[tuple[int, int | None]] = [(0, None)]
    if rows is not None:
        size = max(_MIN_CHUNK_ROWS, -(-rows // _MAX_CHUNKS))
        bounds = [(i, i + size) for i in range(0, rows, size)]
    biased = bias_V is not None
    weights_N = tf.cast(weights_N, tf.float32)

    def chunk(features, table, bias, targets, weights):
        def logits_of_chunk():
            return tf.cast(tf.matmul(features, table, transpose_b=True), tf.float32) + bias

        # XLA takes oneDNN's softmax, one pass, only if nothing else uses the logits.
        probabilities = tf.nn.softmax(logits_of_chunk())
        nll = _negative_log_likelihood(probabilities, targets, logits_of_chunk)
        # 0 * nll: the probabilities are last used by d_logits, which can take their place.
        slope, squares = weights + 0.0 * nll, tf.zeros_like(weights)
        if z_loss:
            of_targets = tf.cast(features, tf.float32) * tf.cast(
                tf.gather(table, targets), tf.float32
            )
            log_total = nll + tf.reduce_sum(of_targets, -1)
            log_total += tf.gather(bias, targets) if biased else 0.0
            # d objective / d logits = softmax * (1 + 2 * z_loss * log_total) - one_hot(target)
            slope = weights * (1.0 + 2.0 * z_loss * log_total)
            squares = z_loss * tf.square(log_total)
        hit = tf.range(table.shape[0])[None] == targets[:, None]
        d_logits = probabilities * slope[:, None] - tf.where(hit, weights[:, None], 0.0)
        return tf.reduce_sum(weights * nll), tf.reduce_sum(weights * squares), d_logits

    @tf.custom_gradient
    def objective_and_nll(features_ND, table_VD, bias_V):
        table = tf.cast(table_VD, dtype)
        nll, extra = tf.zeros([]), tf.zeros([])
        d_features, d_table, d_bias = [], tf.zeros(table.shape), tf.zeros_like(bias_V)
        for start, end in bounds:
            features = features_ND[start:end]
            part = (features, table, bias_V, targets_N[start:end], weights_N[start:end])
            chunk_nll, chunk_extra, d_logits = chunk(*part)
            nll, extra = nll + chunk_nll, extra + chunk_extra
            if biased and trains_table:
                d_bias += tf.reduce_sum(d_logits, 0)
            d_logits = tf.cast(d_logits, dtype)
            d_features.append(tf.cast(tf.matmul(d_logits, table), tf.float32))
            if trains_table:
                d_table += tf.cast(tf.matmul(d_logits, features, transpose_a=True), tf.float32)
        d_features = tf.concat(d_features, 0)

        def gradient(d_objective, _):
            if not trains_table:
                return tf.cast(d_objective * d_features, dtype), None, None
            return (
                tf.cast(d_objective * d_features, dtype),
                tf.cast(d_objective * d_table, table_VD.dtype),
                d_objective * d_bias,
            )

        return (nll + extra, nll), gradient

    bias = tf.cast(bias_V, tf.float32) if biased else tf.zeros([])
    objective, nll = objective_and_nll(features_ND, tf.convert_to_tensor(table_VD), bias)
    return LossSums(objective, tf.stop_gradient(nll), tf.reduce_sum(weights_N))


def _negative_log_likelihood(
    probabilities_NV: tf.Tensor, targets_N: tf.Tensor, logits_NV: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """Compute -log(probability of the target), float32 [N].

    The logits are computed again only if a probability has no logarithm in float32
    or is not finite.
    """
    of_target = tf.gather(probabilities_NV, targets_N, batch_dims=1)

    def from_logits():
        logits = logits_NV()
        return tf.reduce_logsumexp(logits, -1) - tf.gather(logits, targets_N, batch_dims=1)

    return tf.cond(
        tf.reduce_all(of_target > _LEAST_PROBABILITY),
        lambda: -tf.math.log(of_target),
        from_logits,
    )


def dropout_seed(seed: int, step: Any, replica: Any = 0) -> tf.Tensor:
    """Return the seed of one step's dropout on one replica, int32 [2].

    A replica has masks of its own, so with dropout the losses depend on the number of replicas.

    Args:
        seed: The run's.
        step: Integer scalar, such as the optimizer's iterations.
        replica: Integer scalar.
    """
    of_step = tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
    return tf.random.experimental.stateless_fold_in(of_step, tf.cast(replica, tf.int32))


def loss_sums(model: Any, batch: Any, dropout_seed: Any = None, z_loss: float = 0.0) -> LossSums:
    """Sum the loss of a batch; the same for every task, as the batch says which targets count.

    Args:
        model: A decoder or encoder.
        batch: A `Batch` of arrays [B, T].
        dropout_seed: int32 [2], (seed, step); None for no dropout.
        z_loss: As for `cross_entropy_sums`.
    """
    counted = batch.loss_weights if model.shape_config.experts > 1 else None
    x_ND, routing = model.encode_and_count(
        batch.inputs, batch.segment_ids, batch.positions, dropout_seed, counted
    )
    targets, weights = tf.reshape(batch.targets, [-1]), tf.reshape(batch.loss_weights, [-1])
    features_ND, table_VD, bias_V = model.head(x_ND)
    trains_table = model.builder.trains_base or trains_head(model.shape_config)

    def head_sums(features_ND):
        return cross_entropy_sums(
            features_ND, table_VD, bias_V, targets, weights, z_loss, trains_table
        )

    sums = model.builder.island(head_sums)(features_ND)
    if not routing:
        return sums
    return sums._replace(objective=tf.add_n([sums.objective, *(r.objective for r in routing)]))
