"""The MLPs of a layer's experts, each over the tokens that are sent to it; none is dropped.

XLA needs static shapes, and how many tokens an expert gets is known only when it runs. So tokens
are sorted by expert, each expert's are padded to whole blocks of B rows, and a loop computes as
many blocks as there are. Of N tokens and K experts a token there are at most N * K / B + E. Where
the number of tokens is unknown until it runs (in serving, without XLA), each expert computes its
own tokens, without padding.

Nothing is added up in an order that changes: rows are moved by gathers, and so are their gradients
(by the inverse permutation), and one expert's blocks follow each other.

Shape suffixes: N tokens, D model width, F inner width, E experts, K experts of a token, A = N * K
assignments, Q blocks, B rows of a block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tokenmill.model.expert_blocks import block_rows, most_blocks

Activation = Callable[[list[Any]], Any]
"""Makes of what the inner matrices compute, [.., F] each, what the last one takes, [.., F]."""


class ExpertWeights(NamedTuple):
    """Weights of all experts of a layer, in the dtype of the computation.

    Attributes:
        inner: Matrices [E, D, F]: up, or gate and up.
        inner_biases: Of each of them [E, F]; none without biases.
        down: [E, F, D].
        down_bias: [E, D], or None.
    """

    inner: list[Any]
    inner_biases: list[Any]
    down: Any
    down_bias: Any


def expert_mlps(
    x_ND: Any, chosen_NK: Any, weights: ExpertWeights, activation: Activation, trains: bool
) -> Any:
    """Compute the chosen experts' MLPs of each token: [N, D], int32 [N, K] -> [N, K, D].

    Args:
        x_ND: Inputs.
        chosen_NK: Numbers of the experts of each token, all different.
        weights: Of the experts.
        activation: Between their matrices.
        trains: Whether the weights need gradients.
    """
    if x_ND.shape[0] is None:
        return _by_expert(x_ND, chosen_NK, weights, activation)
    return _by_block(x_ND, chosen_NK, weights, activation, trains)


def mlp_inner(rows: Any, expert: int, weights: ExpertWeights) -> list[Any]:
    """Compute what the inner matrices of one expert make of its rows: [rows, F] each."""
    biases = [bias[expert] for bias in weights.inner_biases]
    return _inner(rows, [kernel[expert] for kernel in weights.inner], biases)


def mlp_output(
    inner: list[Any], expert: int, weights: ExpertWeights, activation: Activation
) -> Any:
    """Compute what one expert's last matrix makes of what its inner matrices made: [rows, D]."""
    output = tf.matmul(activation(inner), weights.down[expert])
    return output if weights.down_bias is None else output + weights.down_bias[expert]


def mlp_gradients(
    rows: Any,
    inner: list[Any],
    dy: Any,
    kernels: list[Any],
    down: Any,
    activation: Activation,
    biased: bool,
) -> tuple[Any, list[Any]]:
    """Compute the gradients of one expert's MLP, whose activation is computed once more.

    Args:
        rows: Its inputs, [rows, D].
        inner: What the inner matrices made of them, [rows, F] each.
        dy: The gradient by its outputs, [rows, D].
        kernels: Its inner matrices, [D, F] each.
        down: Its last matrix, [F, D].
        activation: Between them.
        biased: Whether it has biases.

    Returns:
        The gradient by the rows, and those by its weights, of biases in float32: inner matrices,
        inner biases, last matrix, last bias.
    """
    with tf.GradientTape() as tape:
        tape.watch(inner)
        activated = activation(inner)
    d_activated = tf.matmul(dy, down, transpose_b=True)
    d_inner = tape.gradient(activated, inner, d_activated)
    # As one product would: the gradients by each matrix's input are added up.
    d_rows = tf.add_n(
        [tf.matmul(d, kernel, transpose_b=True) for d, kernel in zip(d_inner, kernels, strict=True)]
    )
    of_weights = [tf.matmul(rows, d, transpose_a=True) for d in d_inner]
    if biased:
        of_weights += [tf.reduce_sum(tf.cast(d, tf.float32), 0) for d in d_inner]
    of_weights.append(tf.matmul(activated, dy, transpose_a=True))
    of_weights += [tf.reduce_sum(tf.cast(dy, tf.float32), 0)] if biased else []
    return d_rows, of_weights


def _by_expert(x_ND, chosen_NK, weights, activation):
    """Compute each expert's tokens by themselves; for any number of them, but not for XLA."""
    experts_per_token, chosen_A = chosen_NK.shape[1], tf.reshape(chosen_NK, [-1])
    outputs, order = [], []
    for expert in range(weights.down.shape[0]):
        of_expert = tf.cast(tf.where(chosen_A == expert)[:, 0], tf.int32)
        rows = tf.gather(x_ND, of_expert // experts_per_token)
        inner = mlp_inner(rows, expert, weights)
        outputs.append(mlp_output(inner, expert, weights, activation))
        order.append(of_expert)
    place_A = tf.argsort(tf.concat(order, 0))  # inverts the permutation, in TensorFlow Lite too
    y_AD = tf.gather(tf.concat(outputs, 0), place_A)
    return tf.reshape(y_AD, [-1, experts_per_token, x_ND.shape[1]])


class _Blocks(NamedTuple):
    """Which assignment each row of the blocks has, and which row each assignment.

    Attributes:
        assignment_R: int32 [Q * B]; A where a row is padding.
        row_NK: int32 [N, K].
        expert_Q: int32 [Q], the expert of each block.
        count: How many blocks there are, int32.
        rows: B.
    """

    assignment_R: Any
    row_NK: Any
    expert_Q: Any
    count: Any
    rows: int


def _assign_blocks(chosen_NK: Any, experts: int) -> _Blocks:
    tokens, experts_per_token = chosen_NK.shape
    assignments = tokens * experts_per_token
    size = block_rows(assignments, experts)
    chosen_A = tf.reshape(chosen_NK, [-1])
    load_E = tf.reduce_sum(tf.cast(chosen_A[:, None] == tf.range(experts), tf.int32), 0)
    first_E = tf.cumsum(load_E, exclusive=True)
    blocks_E = (load_E + size - 1) // size
    end_E = tf.cumsum(blocks_E)
    first_block_E = end_E - blocks_E
    sorted_A = tf.argsort(chosen_A, stable=True)
    place_A = tf.argsort(sorted_A)  # the inverse permutation
    row_A = place_A - tf.gather(first_E - size * first_block_E, chosen_A)
    blocks_Q = tf.range(most_blocks(assignments, experts))
    expert_Q = tf.reduce_sum(tf.cast(blocks_Q[:, None] >= end_E, tf.int32), 1)
    expert_Q = tf.minimum(expert_Q, experts - 1)
    within_Q = (blocks_Q - tf.gather(first_block_E, expert_Q)) * size
    within_QB = within_Q[:, None] + tf.range(size)
    used_QB = within_QB < tf.gather(load_E, expert_Q)[:, None]
    place_QB = tf.where(used_QB, tf.gather(first_E, expert_Q)[:, None] + within_QB, 0)
    assignment_QB = tf.where(used_QB, tf.gather(sorted_A, place_QB), assignments)
    return _Blocks(
        tf.reshape(assignment_QB, [-1]),
        tf.reshape(row_A, [tokens, experts_per_token]),
        expert_Q,
        end_E[-1],
        size,
    )


def _by_block(x_ND, chosen_NK, weights, activation, trains):
    blocks = _assign_blocks(chosen_NK, weights.down.shape[0])
    rows_QBD = tf.reshape(_to_rows(x_ND, blocks), [-1, blocks.rows, x_ND.shape[1]])
    y_QBD = _mlp_of_blocks(rows_QBD, weights, blocks, activation, trains)
    return _from_rows(tf.reshape(y_QBD, [-1, x_ND.shape[1]]), blocks)


def _to_rows(x_ND, blocks):
    """Copy tokens to the rows of blocks: [N, D] -> [Q * B, D]; padding is 0.

    Not a token: where one overflows in an expert that it was not given to, 0 times infinity would
    reach that expert's gradient.
    """
    tokens, experts_per_token = blocks.row_NK.shape

    @tf.custom_gradient
    def copy(x_ND):
        def gradient(d_RD):
            return tf.reduce_sum(tf.gather(d_RD, blocks.row_NK), 1)

        token_R = tf.minimum(blocks.assignment_R // experts_per_token, tokens)
        x_ND = tf.concat([x_ND, tf.zeros([1, x_ND.shape[1]], x_ND.dtype)], 0)
        return tf.gather(x_ND, token_R), gradient

    return copy(x_ND)


def _from_rows(y_RD, blocks):
    """Copy the rows of blocks back: [Q * B, D] -> [N, K, D]; no gradient reaches padding."""

    @tf.custom_gradient
    def copy(y_RD):
        def gradient(d_NKD):
            width = d_NKD.shape[-1]
            d_AD = tf.reshape(d_NKD, [-1, width])
            d_AD = tf.concat([d_AD, tf.zeros([1, width], d_AD.dtype)], 0)
            return tf.gather(d_AD, blocks.assignment_R)

        return tf.gather(y_RD, blocks.row_NK), gradient

    return copy(y_RD)


def _mlp_of_blocks(rows_QBD, weights, blocks, activation, trains):
    """Compute each block's rows by its expert: [Q, B, D] -> [Q, B, D]; unused blocks are 0."""
    matrices, biased = len(weights.inner), bool(weights.inner_biases)
    most, size, width = rows_QBD.shape
    inner_width, dtype = weights.down.shape[1], rows_QBD.dtype
    flat = [*weights.inner, *weights.inner_biases, weights.down]
    flat += [weights.down_bias] if biased else []

    def unpack(flat):
        inner, flat = flat[:matrices], flat[matrices:]
        biases, flat = (flat[:matrices], flat[matrices:]) if biased else ([], flat)
        return inner, biases, flat[0], flat[1] if biased else None

    def run(body, accumulators):
        # As many turns as there are blocks; a loop of XLA updates its operands in place.
        return tf.while_loop(
            lambda block, *_: block < blocks.count,
            lambda block, *each: (
                block + 1,
                *body(block, tf.gather(blocks.expert_Q, block), *each),
            ),
            (tf.constant(0), *accumulators),
            parallel_iterations=1,
        )[1:]

    @tf.custom_gradient
    def compute(rows_QBD, *flat):
        kernels, biases, down, down_bias = unpack(flat)

        def forward(block, expert, y, *inner):
            own = _inner(
                _at(rows_QBD, block),
                [_at(kernel, expert) for kernel in kernels],
                [_at(bias, expert) for bias in biases],
            )
            output = tf.matmul(activation(own), _at(down, expert))
            if biased:
                output += _at(down_bias, expert)
            kept = [_put(all_, block, one) for all_, one in zip(inner, own, strict=True)]
            return _put(y, block, output), *kept

        zeros = [tf.zeros([most, size, inner_width], dtype)] * matrices
        y_QBD, *inner = run(forward, [tf.zeros([most, size, width], dtype), *zeros])

        def gradient(dy_QBD):
            def backward(block, expert, dx, *sums):
                d_kernels, d_biases, d_down, d_down_bias = (
                    unpack(sums) if trains else ([], [], None, None)
                )
                d_rows, more = mlp_gradients(
                    _at(rows_QBD, block),
                    [_at(x, block) for x in inner],
                    _at(dy_QBD, block),
                    [_at(kernel, expert) for kernel in kernels],
                    _at(down, expert),
                    activation,
                    biased,
                )
                dx = _put(dx, block, d_rows)
                if not trains:
                    return (dx,)
                flat_sums = [*d_kernels, *d_biases, d_down, *([d_down_bias] if biased else [])]
                added = [
                    _put(total, expert, _at(total, expert) + tf.cast(one, tf.float32))
                    for total, one in zip(flat_sums, more, strict=True)
                ]
                return (dx, *added)

            sums = [tf.zeros(weight.shape) for weight in flat] if trains else []
            dx, *sums = run(backward, [tf.zeros_like(rows_QBD), *sums])
            if not trains:
                return (dx, *([None] * len(flat)))
            return dx, *(tf.cast(d, weight.dtype) for d, weight in zip(sums, flat, strict=True))

        return y_QBD, gradient

    return compute(rows_QBD, *(tf.convert_to_tensor(weight) for weight in flat))


def _inner(rows, kernels, biases):
    inner = [tf.matmul(rows, kernel) for kernel in kernels]
    return [x + b for x, b in zip(inner, biases, strict=True)] if biases else inner


def _at(x, index):
    """Return x[index], for a scalar.

    By a gather: XLA wants the begin of a slice as a constant, and takes all that it is made of,
    weights included, for constants of the program.
    """
    return tf.gather(x, index)


def _put(x, index, value):
    """Return x with x[index] = value, which XLA writes in place."""
    return tf.tensor_scatter_nd_update(x, [[index]], tf.cast(value, x.dtype)[None])
