"""The chunked cross-entropy beside TensorFlow's own, where probabilities vanish, too."""

import numpy as np
import pytest
import tensorflow as tf

from tokenmill.model import losses

ROWS, WIDTH, VOCABULARY = 40, 8, 50


def plain(features, table, bias, targets, weights, z_loss):
    """The same loss from all logits at once."""
    logits = tf.matmul(features, table, transpose_b=True) + (0.0 if bias is None else bias)
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    squares = z_loss * tf.square(tf.reduce_logsumexp(logits, -1))
    return tf.reduce_sum(weights * (nll + squares)), tf.reduce_sum(weights * nll)


def chunked(features, table, bias, targets, weights, z_loss):
    sums = losses.cross_entropy_sums(features, table, bias, targets, weights, z_loss)
    return sums.objective, sums.nll


def differentiated(function, arguments, jit_compile):
    """Objective, nll, and the gradients by features, table and bias."""
    *inputs, targets, weights, z_loss = arguments
    known = [x for x in inputs if x is not None]

    @tf.function(jit_compile=jit_compile)
    def compute():
        with tf.GradientTape() as tape:
            tape.watch(known)
            objective, nll = function(*inputs, targets, weights, z_loss)
        return objective, nll, tape.gradient(objective, known)

    return compute()


def arguments_of(scale, *, biased, z_loss):
    rng = np.random.default_rng(3)

    def normal(*shape):
        return tf.constant(rng.standard_normal(shape), tf.float32)

    weights = tf.constant(rng.integers(0, 2, ROWS), tf.float32)
    targets = tf.constant(rng.integers(0, VOCABULARY, ROWS), tf.int32)
    bias = normal(VOCABULARY) if biased else None
    return scale * normal(ROWS, WIDTH), normal(VOCABULARY, WIDTH), bias, targets, weights, z_loss


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize(("biased", "z_loss"), [(False, 0.0), (True, 0.1), (False, 0.1)])
def test_loss_and_gradients_are_those_of_the_plain_loss(
    monkeypatch, jit_compile, scale, biased, z_loss
):
    monkeypatch.setattr(losses, "_MIN_CHUNK_ROWS", 16)
    arguments = arguments_of(scale, biased=biased, z_loss=z_loss)
    *sums, gradients = differentiated(chunked, arguments, jit_compile)
    *plain_sums, plain_gradients = differentiated(plain, arguments, jit_compile)
    if scale > 1:  # some targets' probabilities are 0 in float32
        assert float(plain_sums[1]) > ROWS * 87 / 2
    np.testing.assert_allclose(sums, plain_sums, rtol=1e-5)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_not_hidden(value):
    features, *others = arguments_of(1.0, biased=False, z_loss=0.0)
    features = tf.tensor_scatter_nd_update(features, [[5, 2]], [value])
    others[3] = tf.ones([ROWS])
    assert not np.isfinite(float(chunked(features, *others)[1]))
