"""A mixture of experts in the place of a layer's MLP: a router, experts, and shared ones.

Each token passes the experts of the K highest scores, and the sum of their outputs is weighed by
gates made of the router's logits (Shazeer et al. 2017). No expert has a limit, so none is dropped
and a token's output does not depend on the others: not on the batch, nor on how it is split.

What keeps experts equally busy depends on no split, either: the auxiliary loss is of each row by
itself (as the sequence-wise one of DeepSeek-V3), and a bias goes by counts of the whole batch.

Shape suffixes: B rows, T tokens of a row, N = B * T, D model width, E experts, K of them for each
token.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from tokenmill.model.grouped_mlp import ExpertWeights, expert_mlps
from tokenmill.model.shape import SELECTION_BIAS

# The bias is given its counts as a gradient, which adds them up over streams, micro-batches and
# replicas as any other. So small, they are nothing to the gradients' norm; a power of two rounds
# none.
_COUNT_UNIT = 2.0**-60


@dataclass(frozen=True, eq=False)
class RoutedTokens:
    """What a router's statistics count of the tokens of a batch.

    No tuple: Keras would round what it finds in one to a layer's narrow type.

    Attributes:
        used_BT: float32, 1 for a token of a document and 0 for padding.
        weight_B: float32, loss tokens of each row: what its auxiliary loss weighs.
    """

    used_BT: Any
    weight_B: Any


class RoutingSums(NamedTuple):
    """Sums over the tokens of documents of a batch, in one layer; float32.

    Attributes:
        objective: What the layer adds to the summed loss: balance and z-loss.
        load_E: Tokens that were sent to each expert.
        entropy: Of the router's distributions, in nats.
        tokens: How many tokens there were.
    """

    objective: Any
    load_E: Any
    entropy: Any
    tokens: Any


class Experts(keras.layers.Layer):
    """The experts of one layer, with their router.

    Args:
        build: Maker of layers, with the shape.
        shared: The MLP that every token passes besides, or None.
        name: The layer's name.
    """

    def __init__(self, build: Any, shared: keras.layers.Layer | None, name: str):
        super().__init__(dtype=build.dtype, name=name)
        self._shape, self._gelu, self.builder = build.shape, build.gelu, build
        self._spread = build.spread
        self.shared = shared
        gated = build.shape.shared_expert_gate
        self.shared_gate = build.dense(1, "shared_gate", use_bias=False) if gated else None
        self.adapters: dict[Any, Any] = {}  # none: see tokenmill/model/lora.py
        inner = ["gate", "up"] if build.shape.mlp == "swiglu" else ["up"]
        self._inner_names = inner
        self._initializers = {name: build.initializer() for name in ("router", *inner)}
        self._initializers["down"] = build.residual_initializer()

    def build(self, input_shape):
        """Create all weights for inputs [N, D]; of experts that are spread, a part."""
        shape, options = self._shape, {"trainable": self.builder.trains_base}
        experts, d, width = shape.experts, shape.d_model, shape.expert_width
        add_weight = self.add_weight
        if self._spread is not None:
            add_weight = functools.partial(self._spread.add_weight, self)
        # Float32 whatever else is: rounding would choose other experts (Fedus et al. 2021).
        exact = {**options, "dtype": "float32", "autocast": False}
        initializers = self._initializers
        self.router_kernel = self.add_weight(
            (d, experts), initializers["router"], name="router_kernel", **exact
        )
        self.selection_bias = (
            self.add_weight((experts,), "zeros", name=SELECTION_BIAS, **exact)
            if shape.balance == "bias"
            else None
        )
        stored = {**options, "dtype": self.builder.matrix_dtype}
        for name in self._inner_names:
            kernel = add_weight(
                (experts, d, width), initializers[name], name=f"{name}_kernel", **stored
            )
            setattr(self, f"{name}_kernel", kernel)
        self.down_kernel = add_weight(
            (experts, width, d), initializers["down"], name="down_kernel", **stored
        )
        if shape.use_bias:
            for name in self._inner_names:
                bias = add_weight((experts, width), "zeros", name=f"{name}_bias", **options)
                setattr(self, f"{name}_bias", bias)
            self.down_bias = add_weight((experts, d), "zeros", name="down_bias", **options)
        for layer in (self.shared, self.shared_gate):
            if layer is not None:
                layer.build(input_shape)
        self.built = True

    def call(self, x_ND, drop_input=None, tokens=None):
        """Apply the chosen and the shared experts to each token: [N, D] -> [N, D].

        Args:
            x_ND: Inputs.
            drop_input: Not used: no adapter is here.
            tokens: `RoutedTokens`, to have `RoutingSums` returned besides.
        """
        del drop_input
        logits_NE = tf.matmul(tf.cast(x_ND, tf.float32), tf.convert_to_tensor(self.router_kernel))
        scores_NE = self._scores(logits_NE)
        ranked_NE = tf.stop_gradient(scores_NE)
        if self.selection_bias is not None:
            ranked_NE += tf.stop_gradient(tf.convert_to_tensor(self.selection_bias))
        _, chosen_NK = tf.math.top_k(ranked_NE, self._shape.experts_per_token)
        # By a product and not a gather, whose gradient would add up in any order.
        hits_NKE = tf.one_hot(chosen_NK, self._shape.experts)
        gates_NK = tf.reduce_sum(hits_NKE * scores_NE[:, None], -1)
        if self._shape.normalize_gates:
            gates_NK /= tf.reduce_sum(gates_NK, -1, keepdims=True) + 1e-20
        gates_NK = tf.cast(gates_NK * self._shape.router_scale, x_ND.dtype)
        weights = self._weights()
        if self._spread is not None:
            y_NKD = self._spread.mlps(x_ND, chosen_NK, weights, self._activation)
        else:
            y_NKD = expert_mlps(
                x_ND, chosen_NK, weights, self._activation, self.builder.trains_base
            )
        y_ND = tf.reduce_sum(y_NKD * gates_NK[:, :, None], 1)
        if self.shared is not None:
            added = self.shared(x_ND)
            if self.shared_gate is not None:
                added = added * ops.sigmoid(self.shared_gate(x_ND))
            y_ND += added
        if tokens is None:
            return y_ND
        sums = self._sums(logits_NE, scores_NE, tf.reduce_sum(hits_NKE, 1), tokens)
        if self.selection_bias is not None and self.builder.trains_base:
            y_ND = self._count_for_bias(y_ND, sums.load_E)
        return y_ND, sums

    def _scores(self, logits_NE):
        if self._shape.router == "sigmoid":
            return tf.sigmoid(logits_NE)
        return tf.nn.softmax(logits_NE)

    def _activation(self, inner):
        if self._shape.mlp == "swiglu":
            gate, up = inner
            return ops.silu(gate) * up
        return self._gelu(inner[0])

    def _weights(self) -> ExpertWeights:
        def tensor(name):
            return ops.cast(ops.convert_to_tensor(getattr(self, name)), self.compute_dtype)

        biased = self._shape.use_bias
        return ExpertWeights(
            inner=[tensor(f"{name}_kernel") for name in self._inner_names],
            inner_biases=[tensor(f"{name}_bias") for name in self._inner_names] if biased else [],
            down=tensor("down_kernel"),
            down_bias=tensor("down_bias") if biased else None,
        )

    def _sums(self, logits_NE, scores_NE, hits_NE, tokens: RoutedTokens) -> RoutingSums:
        """Count what the router did, and what it adds to the loss; all of it sums over rows."""
        shape, experts = self._shape, self._shape.experts
        steps = tokens.used_BT.shape[1]
        used_BT1 = tokens.used_BT[:, :, None]

        def by_row(x_NE):
            return tf.reshape(x_NE, [-1, steps, experts]) * used_BT1

        share_NE = scores_NE
        if shape.router == "sigmoid":
            share_NE /= tf.reduce_sum(scores_NE, -1, keepdims=True) + 1e-20
        load_BE = tf.reduce_sum(by_row(tf.stop_gradient(hits_NE)), 1)
        count_B = tf.reduce_sum(tokens.used_BT, 1)
        mean_of = tf.maximum(count_B, 1.0)[:, None]
        objective = tf.zeros([])
        if shape.balance == "auxiliary" and shape.balance_step:
            sent_BE = load_BE / (mean_of * shape.experts_per_token)
            likely_BE = tf.reduce_sum(by_row(share_NE), 1) / mean_of
            uneven_B = experts * tf.reduce_sum(sent_BE * likely_BE, 1)  # 1 where all are equal
            objective += shape.balance_step * tf.reduce_sum(tokens.weight_B * uneven_B)
        if shape.router_z_loss:
            squares_N = tf.square(tf.reduce_logsumexp(logits_NE, -1))
            squares_B = tf.reduce_sum(tf.reshape(squares_N, [-1, steps]) * tokens.used_BT, 1)
            mean_B = squares_B / mean_of[:, 0]
            objective += shape.router_z_loss * tf.reduce_sum(tokens.weight_B * mean_B)
        share_NE = tf.stop_gradient(share_NE)
        terms_NE = -share_NE * tf.math.log(tf.maximum(share_NE, 1e-30))
        return RoutingSums(
            objective,
            tf.reduce_sum(load_BE, 0),
            tf.reduce_sum(by_row(terms_NE)),
            tf.reduce_sum(count_B),
        )

    def _count_for_bias(self, y_ND, load_E):
        """Give the bias, as its gradient, by how much each expert's load is above the mean."""

        @tf.custom_gradient
        def attach(y_ND, bias_E):
            excess_E = (load_E - tf.reduce_mean(load_E)) * _COUNT_UNIT

            def gradient(dy_ND):
                return dy_ND, excess_E

            return tf.identity(y_ND) + tf.cast(0.0 * bias_E[0], y_ND.dtype), gradient

        return attach(y_ND, tf.convert_to_tensor(self.selection_bias))
