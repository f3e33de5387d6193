"""Experts spread over replicas: tokens go to the replicas that have their experts, and back.

Lepikhin et al. 2021 ("GShard"), sec. 3: by an all-to-all there and one back, but without a limit to
what an expert gets: what a replica sends to another is padded to the most that any of them sends to
any, which a small exchange before it tells. So the shapes are known only when it runs, and it
stands between XLA's programs.

Shape suffixes: N tokens of a replica, D model width, K experts of a token, A = N * K assignments,
P replicas, E experts of a replica, C places that a replica has for the rows of each other one,
R = P * C rows.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from components.train.distributed.collectives import Collectives
from tokenmill.model.grouped_mlp import (
    Activation,
    ExpertWeights,
    mlp_gradients,
    mlp_inner,
    mlp_output,
)


class _Route(NamedTuple):
    """Where rows go and where they are from; all int32.

    Attributes:
        assignment_R: Which assignment each row that is sent is of; A for padding.
        row_A: Which of them each assignment is.
        order_R: Which row that is received is at each place, sorted by expert, padding last.
        place_R: At which place each of them is.
        sizes_E: Rows for each expert of this replica.
        places: C.
    """

    assignment_R: Any
    row_A: Any
    order_R: Any
    place_R: Any
    sizes_E: Any
    places: Any


def exchanged_mlps(
    x_ND: Any,
    chosen_NK: Any,
    weights: ExpertWeights,
    activation: Activation,
    collectives: Collectives,
    replica: int,
    replicas: int,
) -> Any:
    """Compute the chosen experts' MLPs, wherever they are: [N, D], int32 [N, K] -> [N, K, D].

    Call it in a replica's context; all replicas have to.

    Args:
        x_ND: Inputs.
        chosen_NK: Numbers of the experts of each token, of all replicas.
        weights: Of the experts of this replica.
        activation: Between their matrices.
        collectives: To the other replicas.
        replica: This one's number.
        replicas: How many there are.
    """
    (tokens, chosen), width = chosen_NK.shape, x_ND.shape[1]
    route = _route(chosen_NK, weights.down.shape[0], collectives, replica, replicas)
    token_R = tf.minimum(route.assignment_R // chosen, tokens)
    sent = _rows(x_ND, token_R, route.row_A, chosen)
    got = collectives.all_to_all(tf.reshape(sent, [replicas, route.places, width]))
    sorted_rows = _rows(tf.reshape(got, [-1, width]), route.order_R, route.place_R)
    done = _mlps(sorted_rows, route.sizes_E, weights, activation)
    y_RD = _rows(done, route.place_R, route.order_R)
    back = collectives.all_to_all(tf.reshape(y_RD, [replicas, route.places, width]))
    y_AD = _rows(tf.reshape(back, [-1, width]), route.row_A, route.assignment_R)
    return tf.reshape(y_AD, [tokens, chosen, width])


def _route(
    chosen_NK: Any, experts: int, collectives: Collectives, replica: int, replicas: int
) -> _Route:
    chosen_A = tf.reshape(chosen_NK, [-1])
    hits = tf.cast(chosen_A[:, None] == tf.range(replicas * experts), tf.float32)
    # Each replica tells all others what it sends to whom; in float32, exact up to 2^24.
    told = tf.tile(tf.reduce_sum(hits, 0)[None], [replicas, 1])
    loads = tf.cast(collectives.all_to_all(told), tf.int32)
    load_PPE = tf.reshape(loads, [replicas, replicas, experts])  # from, to
    load_PP = tf.reduce_sum(load_PPE, 2)
    places = tf.reduce_max(load_PP)
    place_C = tf.range(places)

    # Sorted by expert, so by replica.
    sorted_A = tf.argsort(chosen_A, stable=True)
    rank_A = tf.math.invert_permutation(sorted_A)
    sent_P = load_PP[replica]
    first_P = tf.cumsum(sent_P, exclusive=True)
    used_PC = place_C < sent_P[:, None]
    rank_PC = tf.where(used_PC, first_P[:, None] + place_C, 0)
    assignment_PC = tf.where(used_PC, tf.gather(sorted_A, rank_PC), tf.size(chosen_A))
    to_A = chosen_A // experts
    row_A = to_A * places + rank_A - tf.gather(first_P, to_A)

    # Of each replica's rows, those for one expert follow each other, and padding is last.
    got_PE = load_PPE[:, replica]
    end_PE = tf.cumsum(got_PE, axis=1)
    expert_PC = tf.reduce_sum(tf.cast(place_C[:, None] >= end_PE[:, None], tf.int32), 2)
    order_R = tf.argsort(tf.reshape(expert_PC, [-1]), stable=True)
    return _Route(
        tf.reshape(assignment_PC, [-1]),
        row_A,
        order_R,
        tf.math.invert_permutation(order_R),
        tf.reduce_sum(got_PE, 0),
        places,
    )


def _rows(x: Any, taken: Any, places: Any, times: int = 1) -> Any:
    """Return rows by their numbers, a row of zeros for the number behind the last.

    Its gradient is a gather, too, whose sums have one order.

    Args:
        x: [rows, D].
        taken: int32, which row is at each place of what is returned.
        places: int32 [rows * times], at which places each row is; the number of places for none.
        times: How often each row is taken.
    """
    width = x.shape[1]

    def padded(x):
        return tf.concat([x, tf.zeros([1, width], x.dtype)], 0)

    @tf.custom_gradient
    def take(x):
        def gradient(d):
            d = tf.gather(padded(d), places)
            return d if times == 1 else tf.reduce_sum(tf.reshape(d, [-1, times, width]), 1)

        return tf.gather(padded(x), taken), gradient

    return take(x)


def _mlps(rows: Any, sizes_E: Any, weights: ExpertWeights, activation: Activation) -> Any:
    """Compute each expert's rows, which follow each other; those behind them become 0.

    For the backward pass it keeps the rows and what the inner matrices make of them, and none of
    what the activation does. The gradients of all experts' matrices are put together once: that of
    a slice is as large as all of them, and there would be one for each expert before a sum.
    """
    experts, matrices = weights.down.shape[0], len(weights.inner)
    biased = bool(weights.inner_biases)
    rest = tf.shape(rows)[0] - tf.reduce_sum(sizes_E)
    sizes = tf.concat([sizes_E, [rest]], 0)

    def of_experts(x: Any) -> tuple[list[Any], Any]:
        *parts, padding = tf.split(x, sizes, num=experts + 1)
        return parts, padding

    @tf.custom_gradient
    def compute(rows: Any, *flat: Any) -> Any:
        apart = [tf.unstack(weight) for weight in flat]
        own = ExpertWeights(
            inner=apart[:matrices],
            inner_biases=apart[matrices : 2 * matrices] if biased else [],
            down=apart[-2] if biased else apart[-1],
            down_bias=apart[-1] if biased else None,
        )
        parts, padding = of_experts(rows)
        inner = [mlp_inner(part, expert, own) for expert, part in enumerate(parts)]
        done = [mlp_output(each, expert, own, activation) for expert, each in enumerate(inner)]

        def gradient(dy: Any) -> Any:
            # Split anew, as the rows are kept whole.
            (parts, padding), (dy_parts, _) = of_experts(rows), of_experts(dy)
            d_parts, d_weights = zip(
                *(
                    mlp_gradients(
                        parts[expert],
                        inner[expert],
                        dy_parts[expert],
                        [kernel[expert] for kernel in own.inner],
                        own.down[expert],
                        activation,
                        biased,
                    )
                    for expert in range(experts)
                ),
                strict=True,
            )
            d_flat = [
                tf.cast(tf.stack(each), weight.dtype)
                for each, weight in zip(zip(*d_weights, strict=True), flat, strict=True)
            ]
            return tf.concat([*d_parts, tf.zeros_like(padding)], 0), *d_flat

        return tf.concat([*done, tf.zeros_like(padding)], 0), gradient

    last = [weights.down, weights.down_bias] if biased else [weights.down]
    return compute(rows, *weights.inner, *weights.inner_biases, *last)
