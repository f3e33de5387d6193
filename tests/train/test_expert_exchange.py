"""The MLPs of a replica's experts: gradients to the bit, and no copy of all weights for each."""

import numpy as np
import pytest
import tensorflow as tf

from components.train.distributed.expert_exchange import _mlps
from tokenmill.model.grouped_mlp import ExpertWeights, mlp_inner, mlp_output


def gelu(inner):
    return tf.nn.gelu(inner[0])


def swiglu(inner):
    gate, up = inner
    return tf.nn.silu(gate) * up


def a_layer(experts, width, inner_width, matrices, biased):
    rng = np.random.default_rng(5)

    def weight(*shape):
        return tf.constant(rng.normal(0, 0.3, (experts, *shape)), tf.float32)

    return ExpertWeights(
        [weight(width, inner_width) for _ in range(matrices)],
        [weight(inner_width) for _ in range(matrices)] if biased else [],
        weight(inner_width, width),
        weight(width) if biased else None,
    )


def plainly(rows, sizes, weights, activation):
    """Compute each expert's rows with TensorFlow's own gradients; those behind them are 0."""
    ends = np.cumsum(sizes)
    done = [
        mlp_output(mlp_inner(rows[end - size : end], e, weights), e, weights, activation)
        for e, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    return tf.concat([*done, tf.zeros_like(rows[ends[-1] :])], 0)


@pytest.mark.parametrize(
    ("activation", "matrices", "biased"), [(gelu, 1, False), (gelu, 1, True), (swiglu, 2, True)]
)
def test_gradients_are_those_of_tensorflow(activation, matrices, biased):
    sizes = [3, 0, 5, 1]  # and two rows of padding
    weights = a_layer(4, 6, 10, matrices, biased)
    last = [weights.down, weights.down_bias] if biased else [weights.down]
    flat = [*weights.inner, *weights.inner_biases, *last]
    rng = np.random.default_rng(6)
    rows, dy = (tf.constant(rng.normal(0, 1, (11, 6)), tf.float32) for _ in range(2))
    found = []
    for compute in (_mlps, plainly):
        with tf.GradientTape() as tape:
            tape.watch([rows, *flat])
            y = compute(rows, sizes, weights, activation)
        found.append([y, *tape.gradient(y, [rows, *flat], dy)])
    assert len(found[0]) == 2 + len(flat)
    for ours, reference in zip(*found, strict=True):
        np.testing.assert_array_equal(tf.convert_to_tensor(ours), tf.convert_to_tensor(reference))


def test_no_expert_has_a_gradient_as_large_as_all_weights():
    experts, width = 16, 256
    weights = a_layer(experts, width, 2 * width, 1, False)
    rows = tf.ones([experts, width])

    @tf.function(autograph=False)
    def gradients(up, down):
        with tf.GradientTape() as tape:
            tape.watch([up, down])
            y = _mlps(rows, tf.ones([experts], tf.int32), ExpertWeights([up], [], down, None), gelu)
        return tape.gradient(y, [up, down])

    def peak_bytes():
        tf.config.experimental.reset_memory_stats("CPU:0")
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        gradients(weights.inner[0], weights.down)
        return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before

    try:
        tf.config.experimental.get_memory_info("CPU:0")
    except ValueError as error:
        pytest.skip(f"this TensorFlow does not count a CPU's tensors: {error}")
    of_weights = 2 * 4 * experts * width * 2 * width
    peak_bytes()  # traces
    # Each expert's gradients, and all of them put together: twice, and some for rows.
    assert of_weights <= peak_bytes() < 3 * of_weights
