"""A causal, pre-norm Transformer over packed rows.

Shape suffixes: B rows, T tokens of a row, D model width, H query heads, G key/value heads,
K width of a head, F inner width of the MLP, V vocabulary.
"""

from typing import Any

import keras
from keras import ops

from components.model_shape import ModelShape

# GPT-2 (Radford et al. 2019): weights from N(0, 0.02), projections into the residual stream
# scaled down by the root of their number.
_INIT_STDDEV = 0.02
_ROPE_BASE = 10_000.0


def rotate_by_position(x_BTHK: Any, positions_BT: Any) -> Any:
    """Rotary position embedding (Su et al. 2021), halves paired as in GPT-NeoX."""
    half = x_BTHK.shape[-1] // 2
    frequencies = ops.exp(-ops.log(_ROPE_BASE) * ops.arange(half, dtype="float32") / float(half))
    angles = ops.cast(positions_BT, "float32")[:, :, None, None] * frequencies
    cos, sin = ops.cast(ops.cos(angles), x_BTHK.dtype), ops.cast(ops.sin(angles), x_BTHK.dtype)
    first, second = x_BTHK[..., :half], x_BTHK[..., half:]
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_segment_mask(segment_ids_BT: Any) -> Any:
    """[B, 1, T, T] of bool: query t may attend to key s if s <= t, in the same document.

    Padding (segment 0) forms a segment of its own, so that no softmax is over nothing.
    """
    length = segment_ids_BT.shape[1]
    steps = ops.arange(length)
    causal = steps[:, None] >= steps[None, :]
    same = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    return ops.logical_and(same, causal[None])[:, None]


class _Builder:
    """Makes layers with the shape's options and a seed for each, in a fixed order."""

    def __init__(self, shape: ModelShape, dtype: Any, seed: int):
        self.shape, self.dtype, self._seed, self._count = shape, dtype, seed, 0

    def initializer(self, stddev: float = _INIT_STDDEV) -> keras.initializers.Initializer:
        self._count += 1
        seed = self._seed * 10_007 + self._count
        return keras.initializers.RandomNormal(stddev=stddev, seed=seed)

    def dense(self, units: int, name: str, residual: bool = False) -> keras.layers.Dense:
        stddev = _INIT_STDDEV / (2 * self.shape.n_layers) ** 0.5 if residual else _INIT_STDDEV
        return keras.layers.Dense(
            units,
            use_bias=self.shape.use_bias,
            kernel_initializer=self.initializer(stddev),
            dtype=self.dtype,
            name=name,
        )

    def norm(self, name: str) -> keras.layers.Layer:
        if self.shape.norm == "rms":
            return keras.layers.RMSNormalization(epsilon=1e-6, dtype=self.dtype, name=name)
        return keras.layers.LayerNormalization(epsilon=1e-5, dtype=self.dtype, name=name)


class Attention(keras.layers.Layer):
    """Multi-head (or grouped-query) self-attention within segments."""

    def __init__(self, build: _Builder, name: str):
        super().__init__(dtype=build.dtype, name=name)
        shape = build.shape
        self._heads, self._kv_heads = shape.n_heads, shape.n_kv_heads or shape.n_heads
        self._width = shape.d_model // shape.n_heads
        self._rope = shape.positions == "rope"
        self.query = build.dense(self._heads * self._width, "query")
        self.key = build.dense(self._kv_heads * self._width, "key")
        self.value = build.dense(self._kv_heads * self._width, "value")
        self.output_projection = build.dense(shape.d_model, "output_projection", residual=True)

    def build(self, input_shape):
        """Builds the projections for inputs [B, T, D]."""
        for layer in (self.query, self.key, self.value):
            layer.build(input_shape)
        self.output_projection.build((*input_shape[:-1], self._heads * self._width))
        self.built = True

    def call(self, x_BTD, mask_B1TT, positions_BT):
        """[B, T, D] -> [B, T, D]."""
        length = x_BTD.shape[1]
        q_BTHK = ops.reshape(self.query(x_BTD), (-1, length, self._heads, self._width))
        k_BTGK = ops.reshape(self.key(x_BTD), (-1, length, self._kv_heads, self._width))
        v_BTGK = ops.reshape(self.value(x_BTD), (-1, length, self._kv_heads, self._width))
        if self._rope:
            q_BTHK = rotate_by_position(q_BTHK, positions_BT)
            k_BTGK = rotate_by_position(k_BTGK, positions_BT)
        if self._kv_heads != self._heads:
            repeats = self._heads // self._kv_heads
            k_BTGK = ops.repeat(k_BTGK, repeats, axis=2)
            v_BTGK = ops.repeat(v_BTGK, repeats, axis=2)
        scores = ops.einsum("bthk,bshk->bhts", q_BTHK, k_BTGK) / self._width**0.5
        scores = ops.where(mask_B1TT, ops.cast(scores, "float32"), -1e9)
        weights_BHTT = ops.cast(ops.softmax(scores, axis=-1), v_BTGK.dtype)
        mixed = ops.einsum("bhts,bshk->bthk", weights_BHTT, v_BTGK)
        return self.output_projection(ops.reshape(mixed, (-1, length, self._heads * self._width)))


class Mlp(keras.layers.Layer):
    """GELU or SwiGLU (Shazeer 2020)."""

    def __init__(self, build: _Builder, name: str):
        super().__init__(dtype=build.dtype, name=name)
        shape = build.shape
        self._inner_units = shape.d_ff
        self.gate = build.dense(shape.d_ff, "gate") if shape.mlp == "swiglu" else None
        self.up = build.dense(shape.d_ff, "up")
        self.down = build.dense(shape.d_model, "down", residual=True)

    def build(self, input_shape):
        """Builds the projections for inputs [B, T, D]."""
        for layer in (self.gate, self.up):
            if layer is not None:
                layer.build(input_shape)
        self.down.build((*input_shape[:-1], self._inner_units))
        self.built = True

    def call(self, x_BTD):
        """[B, T, D] -> [B, T, D]."""
        if self.gate is None:
            return self.down(ops.gelu(self.up(x_BTD), approximate=True))
        return self.down(ops.silu(self.gate(x_BTD)) * self.up(x_BTD))


class Decoder(keras.layers.Layer):
    """Token ids, segments and positions in; logits out. Parameters exactly as ModelShape counts.

    A layer, not a keras.Model: Keras gives each Model in a SavedModel a serving signature of one
    input, which cannot be traced for three.

    Args:
        shape: Sizes and options.
        seed: Seed of the initial weights.
        dtype: A Keras dtype policy, such as "float32" or "mixed_bfloat16".
    """

    def __init__(self, shape: ModelShape, seed: int, dtype: str = "float32"):
        super().__init__(dtype=dtype, name="decoder")
        build = _Builder(shape, keras.dtype_policies.get(dtype), seed)
        self.shape_config = shape
        self.token_embedding = keras.layers.Embedding(
            shape.vocab_size,
            shape.d_model,
            embeddings_initializer=build.initializer(),
            dtype=build.dtype,
            name="token_embedding",
        )
        self.position_embedding = (
            keras.layers.Embedding(
                shape.sequence_length,
                shape.d_model,
                embeddings_initializer=build.initializer(),
                dtype=build.dtype,
                name="position_embedding",
            )
            if shape.positions == "learned"
            else None
        )
        self.blocks = [
            (
                build.norm(f"layer{i}_attention_norm"),
                Attention(build, f"layer{i}_attention"),
                build.norm(f"layer{i}_mlp_norm"),
                Mlp(build, f"layer{i}_mlp"),
            )
            for i in range(shape.n_layers)
        ]
        # Keras tracks layers in lists, but not in tuples inside lists.
        self.block_layers = [layer for block in self.blocks for layer in block]
        self.final_norm = build.norm("final_norm")
        self.output_layer = (
            None
            if shape.tie_embeddings
            else keras.layers.Dense(
                shape.vocab_size,
                use_bias=False,
                kernel_initializer=build.initializer(),
                dtype=build.dtype,
                name="output_layer",
            )
        )
        if not self.built:
            self.build(None)

    def build(self, input_shape):
        """Creates all weights now, so that a checkpoint or an optimiser finds them."""
        width = (None, None, self.shape_config.d_model)
        self.token_embedding.build((None, None))
        if self.position_embedding is not None:
            self.position_embedding.build((None, None))
        for layer in (*self.block_layers, self.final_norm):
            layer.build(width)
        if self.output_layer is not None:
            self.output_layer.build(width)
        self.built = True

    def hidden(self, inputs_BT, segment_ids_BT, positions_BT):
        """int32 [B, T] three times -> [B, T, D], before the output projection."""
        x_BTD = self.token_embedding(inputs_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(positions_BT)
        mask = causal_segment_mask(segment_ids_BT)
        for attention_norm, attention, mlp_norm, mlp in self.blocks:
            x_BTD = x_BTD + attention(attention_norm(x_BTD), mask, positions_BT)
            x_BTD = x_BTD + mlp(mlp_norm(x_BTD))
        return self.final_norm(x_BTD)

    def logits(self, hidden):
        """[..., D] -> float32 [..., V]."""
        if self.output_layer is not None:
            return ops.cast(self.output_layer(hidden), "float32")
        table_VD = ops.cast(self.token_embedding.embeddings, hidden.dtype)
        return ops.cast(ops.matmul(hidden, ops.transpose(table_VD)), "float32")

    def call(self, inputs_BT, segment_ids_BT, positions_BT):
        """int32 [B, T] three times -> float32 logits [B, T, V]."""
        return self.logits(self.hidden(inputs_BT, segment_ids_BT, positions_BT))
