"""Layers of decoder and encoder: attention, MLP, norms, embeddings, dropout.

Shape suffixes: B rows, T tokens of a row, N = B * T, D model width, H query heads, G key/value
heads, K width of a head, F inner width of the MLP.

Matrix products run on [N, D]: a product of [B, T, D] and a matrix has B partial sums of the
weight's gradient, which cost more than the product itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tokenmill.model.adapter import Adapter
from tokenmill.model.experts import Experts
from tokenmill.model.lora import ATTENTION_TARGETS, LoraConfig, LoraTarget
from tokenmill.model.rotary import rope_frequencies, rotate_by_position
from tokenmill.model.shape import ModelShape, query_blocks

# GPT-2 (Radford et al. 2019) and BERT (Devlin et al. 2018): weights from N(0, 0.02); GPT-2 scales
# projections into the residual stream down by the root of their number.
_INIT_STDDEV = 0.02
MASKED_SCORE = -1e9
"""Attention score of what may not be looked at."""


def segment_mask(segment_ids_BT: Any, causal: bool) -> Any:
    """Return the mask of attention within documents, bool [B, 1, T, T].

    Query t may attend to key s of the same document; if causal, only where s <= t.

    Padding (segment 0) forms a segment of its own, so that no softmax is over nothing.
    """
    same = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    if causal:
        steps = ops.arange(segment_ids_BT.shape[1])
        same = ops.logical_and(same, steps[:, None] >= steps[None, :])
    return same[:, None]


def attend(q_BHTK: Any, k_BHSK: Any, v_BHSK: Any, mask_B1TS: Any, drop: Any = None) -> Any:
    """Compute softmax attention, [B, H, T, K]; `drop` is applied to the probabilities."""
    weights = attention_weights(q_BHTK, k_BHSK, mask_B1TS)
    weights = ops.cast(weights, v_BHSK.dtype)
    return tf.matmul(weights if drop is None else drop(weights), v_BHSK)


def attention_weights(q_BHTK: Any, k_BHSK: Any, mask_B1TS: Any) -> Any:
    """Compute attention probabilities, float32 [B, H, T, S]."""
    scores = tf.matmul(q_BHTK, k_BHSK, transpose_b=True)
    scores = ops.cast(scores, "float32") / q_BHTK.shape[-1] ** 0.5
    return ops.softmax(ops.where(mask_B1TS, scores, MASKED_SCORE), axis=-1)


class Dropout:
    """Dropout whose mask is a function of a seed and the place in the model, not of a state.

    Args:
        rate: Share of features set to 0; the others are divided by 1 - rate.
        seed: int32 [2], such as (run's seed, step); None for no dropout.
    """

    def __init__(self, rate: float, seed: Any):
        self._rate, self._seed, self._places = rate, seed, 0

    @property
    def active(self) -> bool:
        """Return whether anything is dropped."""
        return self._seed is not None and self._rate > 0

    def next_seed(self) -> Any:
        """Return a seed for one place, int32 [2]; places are numbered in the order of the calls."""
        self._places += 1
        if not self.active:
            return None
        return tf.random.experimental.stateless_fold_in(self._seed, self._places)

    def drop(self, x: Any, seed: Any) -> Any:
        """Drop features of `x` by the mask of a place's seed; None drops nothing."""
        if seed is None:
            return x
        noise = tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")
        kept = ops.cast(noise >= self._rate, x.dtype)
        return x * kept * ops.cast(1.0 / (1.0 - self._rate), x.dtype)


# Folded into a step's seed for the adapters, whose places are counted by themselves: other masks
# are the same with and without them.
_ADAPTERS = 2**30


def adapter_dropout(rate: float, seed: Any) -> Dropout:
    """Return the dropout of adapters' inputs, as `Dropout` with the same seed."""
    if seed is None or not rate:
        return Dropout(0.0, None)
    return Dropout(rate, tf.random.experimental.stateless_fold_in(seed, _ADAPTERS))


class _Freezable:
    """A layer all of whose weights are made frozen if it is not trainable.

    Keras marks them later, when gradient tapes watch the variables already.
    """

    def add_weight(self, shape=None, initializer=None, dtype=None, **options):
        """Add a weight as Keras does, trainable if the layer is."""
        options["trainable"] = self.trainable  # type: ignore[attr-defined]
        return super().add_weight(shape, initializer, dtype, **options)  # type: ignore[misc]


class _NarrowMatrix(_Freezable):
    """A layer that may keep its matrix in 16 bits beside vectors in float32.

    Attributes:
        matrix_dtype: Type of weights of two dimensions; None for that of the layer's policy.
    """

    matrix_dtype: str | None = None

    def add_weight(self, shape=None, initializer=None, dtype=None, **options):
        """Add a weight as Keras does, a matrix in `matrix_dtype`."""
        if self.matrix_dtype is not None and shape is not None and len(shape) > 1:
            dtype = self.matrix_dtype
        return super().add_weight(shape, initializer, dtype, **options)


class Dense(_NarrowMatrix, keras.layers.Dense):
    """Keras' linear layer, whose kernel may be narrower than its bias."""


class Embedding(_NarrowMatrix, keras.layers.Embedding):
    """Keras' table, which may be narrower than the norms around it."""


class LayerNorm(_Freezable, keras.layers.LayerNormalization):
    """Keras' layer norm, whose scale and bias may be frozen."""


class RmsNorm(_Freezable, keras.layers.RMSNormalization):
    """Keras' RMS norm, whose scale may be frozen."""


class Builder:
    """Maker of layers with the shape's options and a seed for each, in a fixed order.

    With "bfloat16" the matrices are stored in 16 bits. Norm scales and biases are float32 still: a
    scale near 1 has neighbors 0.008 apart in bfloat16, farther than any step would move it.

    Args:
        shape: Sizes and options.
        precision: A Keras dtype policy.
        seed: Seed of the initial weights.
        lora: Adapters beside the linear layers; then all weights but the adapters and a
            classifier's head are frozen. None for none.
        spread: Has `add_weight` and `mlps` of experts of which only a part is here, and `island`;
            None where all are (components/train/distributed/spread_experts.py).
    """

    def __init__(
        self,
        shape: ModelShape,
        precision: str,
        seed: int,
        lora: LoraConfig | None = None,
        spread: Any = None,
    ):
        self.shape, self._seed, self._count = shape, seed, 0
        self.lora, self._adapter_count = lora, 0
        self.spread = spread
        self.matrix_dtype = "bfloat16" if precision == "bfloat16" else None
        policy = "mixed_bfloat16" if precision == "bfloat16" else precision
        self.dtype = keras.dtype_policies.get(policy)

    def island(self, function: Callable[..., Any], recomputed: bool = False) -> Callable[..., Any]:
        """Return a part of the model's computation, compiled by itself where the whole cannot be.

        Args:
            function: Has no experts that are spread.
            recomputed: Where it is compiled by itself, keep only its inputs for the backward pass.
                It must have no trained tensors from elsewhere, but variables.
        """
        return function if self.spread is None else self.spread.island(function, recomputed)

    def initializer(self, stddev: float = _INIT_STDDEV) -> keras.initializers.Initializer:
        """Return a normal initializer with the next seed."""
        self._count += 1
        seed = self._seed * 10_007 + self._count
        return keras.initializers.RandomNormal(stddev=stddev, seed=seed)

    def residual_initializer(self) -> keras.initializers.Initializer:
        """Return that of a matrix that adds into the residual stream, with the next seed."""
        scaled = self.shape.causal
        return self.initializer(
            _INIT_STDDEV / (2 * self.shape.layers) ** 0.5 if scaled else _INIT_STDDEV
        )

    def adapters(self, *targets: LoraTarget) -> dict[LoraTarget, Adapter]:
        """Make the adapters of those of the targets that are adapted."""
        made: dict[LoraTarget, Adapter] = {}
        if self.lora is None:
            return made
        for target, features in self.lora.adapted(self.shape).items():
            if target in targets:
                self._adapter_count += 1  # not the count of the others, which start as without
                seed = self._seed * 10_007 + self._adapter_count
                name = f"{target}_adapter"
                made[target] = Adapter(
                    features, self.lora.rank, self.lora.scale, seed, self.dtype, name
                )
        return made

    @property
    def trains_base(self) -> bool:
        """Whether weights are trained that a base model has."""
        return self.lora is None

    def dense(
        self,
        units: int,
        name: str,
        residual: bool = False,
        use_bias: bool | None = None,
        is_new: bool = False,
    ) -> keras.layers.Dense:
        """Make a linear layer.

        Args:
            units: Features of its output.
            name: Its name.
            residual: Whether it adds into the residual stream.
            use_bias: Whether it has a bias; None goes by the shape.
            is_new: Whether no base model has it, so that it is trained in any case.
        """
        layer = Dense(
            units,
            use_bias=self.shape.use_bias if use_bias is None else use_bias,
            kernel_initializer=self.residual_initializer() if residual else self.initializer(),
            trainable=is_new or self.trains_base,
            dtype=self.dtype,
            name=name,
        )
        layer.matrix_dtype = self.matrix_dtype
        return layer

    def norm(self, name: str) -> keras.layers.Layer:
        """Make the shape's norm."""
        if self.shape.norm == "rms":
            return self.rms_norm(name)
        return LayerNorm(
            epsilon=self.shape.epsilon,
            trainable=self.trains_base,
            dtype=self.dtype,
            name=name,
        )

    def rms_norm(self, name: str) -> keras.layers.Layer:
        """Make an RMS norm (Zhang and Sennrich 2019) over the last axis."""
        return RmsNorm(
            epsilon=self.shape.epsilon,
            trainable=self.trains_base,
            dtype=self.dtype,
            name=name,
        )

    def gelu(self, x: Any) -> Any:
        """Apply GELU (Hendrycks and Gimpel 2016) in the shape's form: tanh, unless exact."""
        return ops.gelu(x, approximate=self.shape.mlp != "gelu_exact")

    def embedding(self, rows: int, name: str) -> keras.layers.Embedding:
        """Make a table of `rows` vectors of the model's width."""
        layer = Embedding(
            rows,
            self.shape.d_model,
            embeddings_initializer=self.initializer(),
            trainable=self.trains_base,
            dtype=self.dtype,
            name=name,
        )
        layer.matrix_dtype = self.matrix_dtype
        return layer


DropInput = Callable[[LoraTarget, Any], Any]
"""Drops features of the input [N, M] of a target's adapter."""


def keep_input(target: LoraTarget, x_NM: Any) -> Any:
    """Drop nothing: what an adapter gets outside of training."""
    del target
    return x_NM


def adapted(
    linear: keras.layers.Dense,
    adapters: Mapping[LoraTarget, Adapter],
    target: LoraTarget,
    x_NM: Any,
    drop: DropInput = keep_input,
) -> Any:
    """Apply a linear layer and what its adapter adds, if it has one: [N, M] -> [N, O]."""
    if target not in adapters:
        return linear(x_NM)
    return linear(x_NM) + adapters[target](drop(target, x_NM))


class Attention(keras.layers.Layer):
    """Multi-head (or grouped-query) self-attention within segments."""

    def __init__(self, build: Builder, name: str):
        super().__init__(dtype=build.dtype, name=name)
        shape = build.shape
        self._heads, self._kv_heads, self._width = (
            shape.heads,
            shape.key_value_heads,
            shape.head_width,
        )
        self._causal = shape.causal
        self._frequencies = rope_frequencies(shape) if shape.positions == "rope" else None
        # Query heads, then key heads, then value heads, in one product.
        self.qkv = build.dense(
            (self._heads + 2 * self._kv_heads) * self._width, "qkv", use_bias=shape.has_qkv_bias
        )
        self.q_norm = build.rms_norm("q_norm") if shape.qk_norm else None
        self.k_norm = build.rms_norm("k_norm") if shape.qk_norm else None
        self.output_projection = build.dense(shape.d_model, "output_projection", residual=True)
        self.adapters = build.adapters(*ATTENTION_TARGETS)

    def build(self, input_shape):
        """Build the projections for inputs [N, D]."""
        self.qkv.build(input_shape)
        self.output_projection.build((None, self._heads * self._width))
        for adapter in self.adapters.values():
            adapter.build(None)
        for norm in (self.q_norm, self.k_norm):
            if norm is not None:
                norm.build((None, None, None, self._width))
        self.built = True

    def heads(self, x_ND, positions_BT, drop_input=keep_input):
        """Project to heads: [N, D] -> q [B, H, T, K], k and v [B, G, T, K].

        With qk_norm, q and k are normed; then, with rope, rotated by position.
        """
        length = positions_BT.shape[1]
        rows = tf.shape(positions_BT)[0] if length is None else -1
        steps = tf.shape(positions_BT)[1] if length is None else length
        heads, groups = self._heads, self._kv_heads
        qkv = ops.reshape(self.qkv(x_ND), (rows, steps, heads + 2 * groups, self._width))
        q, k, v = qkv[:, :, :heads], qkv[:, :, heads:-groups], qkv[:, :, -groups:]
        q, k, v = (
            x
            + ops.reshape(
                self.adapters[name](drop_input(name, x_ND)), (rows, steps, x.shape[2], self._width)
            )
            if name in self.adapters
            else x
            for name, x in (("q", q), ("k", k), ("v", v))
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self._frequencies is not None:
            q = rotate_by_position(q, positions_BT, self._frequencies)
            k = rotate_by_position(k, positions_BT, self._frequencies)
        return tuple(ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))

    def for_each_query_head(self, x_BGTK):
        """Repeat each key head for its H / G query heads: [B, G, T, K] -> [B, H, T, K]."""
        repeats = self._heads // self._kv_heads
        return x_BGTK if repeats == 1 else ops.repeat(x_BGTK, repeats, axis=1)

    def project(self, mixed_BHTK, drop_input=keep_input):
        """Project the heads' outputs to the model's width: [B, H, T, K] -> [N, D]."""
        mixed = ops.transpose(mixed_BHTK, (0, 2, 1, 3))
        mixed = ops.reshape(mixed, (-1, self._heads * self._width))
        return adapted(self.output_projection, self.adapters, "o", mixed, drop_input)

    def call(self, x_ND, mask_B1TT, positions_BT, dropout=None, seed=None, drop_input=keep_input):
        """Attend within segments: [N, D] -> [N, D]."""
        q, k, v = self.heads(x_ND, positions_BT, drop_input)
        k, v = self.for_each_query_head(k), self.for_each_query_head(v)
        drop = None if seed is None else lambda weights: dropout.drop(weights, seed)
        length = positions_BT.shape[1]
        blocks = query_blocks(length) if self._causal and length is not None else 1
        if blocks == 1 or drop is not None:
            return self.project(attend(q, k, v, mask_B1TT, drop), drop_input)
        # A block of queries sees no key after its end: those products are left out.
        mixed, size = [], length // blocks
        for end in range(size, length + 1, size):
            queries = q[:, :, end - size : end]
            mask = mask_B1TT[:, :, end - size : end, :end]
            mixed.append(attend(queries, k[:, :, :end], v[:, :, :end], mask))
        return self.project(ops.concatenate(mixed, axis=2), drop_input)

    def probabilities(self, x_ND, mask_B1TT, positions_BT):
        """Compute attention probabilities: [N, D] -> float32 [B, H, T, T]."""
        q, k, _ = self.heads(x_ND, positions_BT)
        return attention_weights(q, self.for_each_query_head(k), mask_B1TT)


class Mlp(keras.layers.Layer):
    """GELU (in the tanh form of GPT-2, or exact) or SwiGLU (Shazeer 2020).

    Args:
        build: Maker of layers.
        name: The layer's name.
        width: Features inside; None takes the shape's.
    """

    def __init__(self, build: Builder, name: str, width: int | None = None):
        super().__init__(dtype=build.dtype, name=name)
        shape = build.shape
        units = shape.d_ff if width is None else width
        self._inner_units, self._gelu = units, build.gelu
        self.gate = build.dense(units, "gate") if shape.mlp == "swiglu" else None
        self.up = build.dense(units, "up")
        self.down = build.dense(shape.d_model, "down", residual=True)
        self.adapters = build.adapters("gate", "up", "down")

    def build(self, input_shape):
        """Build the projections for inputs [N, D]."""
        for layer in (self.gate, self.up):
            if layer is not None:
                layer.build(input_shape)
        self.down.build((None, self._inner_units))
        for adapter in self.adapters.values():
            adapter.build(None)
        self.built = True

    def call(self, x_ND, drop_input=keep_input):
        """Apply the MLP to each token: [N, D] -> [N, D]."""
        inner = adapted(self.up, self.adapters, "up", x_ND, drop_input)
        if self.gate is None:
            inner = self._gelu(inner)
        else:
            gate = adapted(self.gate, self.adapters, "gate", x_ND, drop_input)
            inner = ops.silu(gate) * inner
        return adapted(self.down, self.adapters, "down", inner, drop_input)


def _mlp_or_experts(build: Builder, has_experts: bool) -> Mlp | Experts:
    if not has_experts:
        return Mlp(build, "mlp")
    shape = build.shape
    width = shape.shared_experts * shape.expert_width
    return Experts(build, Mlp(build, "shared", width) if width else None, "mlp")


class Block(keras.layers.Layer):
    """A Transformer layer; the norm is before (GPT-2) or behind (BERT) attention and MLP.

    Args:
        build: Maker of layers.
        name: The layer's name.
        has_experts: Whether it has a mixture of experts in the place of the MLP.
    """

    def __init__(self, build: Builder, name: str, has_experts: bool = False):
        super().__init__(dtype=build.dtype, name=name)
        self._post = build.shape.norm_position == "post"
        self.has_experts = has_experts
        self.attention_norm = build.norm("attention_norm")
        self.attention = Attention(build, "attention")
        self.mlp_norm = build.norm("mlp_norm")
        self.mlp = _mlp_or_experts(build, has_experts)
        self._island = build.island

    def build(self, input_shape):
        """Build all parts for inputs [N, D]."""
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            layer.build(input_shape)
        self.built = True

    def call(
        self,
        x_ND,
        mask_B1TT,
        positions_BT,
        dropout=None,
        seeds=(None, None, None),
        drop_input=keep_input,
        tokens=None,
    ):
        """Apply attention and MLP: [N, D] -> [N, D].

        `seeds` are of the dropout of probabilities, after attention and after the MLP;
        `drop_input` is that of the adapters' inputs. With `tokens` (`RoutedTokens`) a layer of
        experts returns their `RoutingSums` besides.
        """

        def drop(x, seed):
            return x if seed is None else dropout.drop(x, seed)

        def attend_and_norm(x_ND):
            inner = x_ND if self._post else self.attention_norm(x_ND)
            mixed = self.attention(
                inner,
                mask_B1TT,
                positions_BT,
                dropout=dropout,
                seed=seeds[0],
                drop_input=drop_input,
            )
            x_ND = x_ND + drop(mixed, seeds[1])
            if self._post:
                x_ND = self.attention_norm(x_ND)
            return x_ND, x_ND if self._post else self.mlp_norm(x_ND)

        x_ND, inner = self._island(attend_and_norm, recomputed=True)(x_ND)
        sums = None
        if tokens is None:
            inner = self.mlp(inner, drop_input=drop_input)
        else:
            inner, sums = self.mlp(inner, drop_input=drop_input, tokens=tokens)
        x_ND = x_ND + drop(inner, seeds[2])
        if self._post:
            x_ND = self.mlp_norm(x_ND)
        return x_ND if sums is None else (x_ND, sums)

    def probabilities(self, x_ND, mask_B1TT, positions_BT):
        """Compute this layer's attention probabilities for its input, float32 [B, H, T, T]."""
        inner = x_ND if self._post else self.attention_norm(x_ND)
        return self.attention.probabilities(inner, mask_B1TT, positions_BT)
