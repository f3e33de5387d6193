"""The decoder with a cache of keys and values: each new token costs one row, not the whole text.

The layers are the decoder's own; only how they are called differs. Every length may be unknown
when the graph is built.

Shape suffixes as in decoder.py, and S: slots of the cache, R: query heads for each key/value head.
"""

from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from components.train.models.decoder import Decoder, rotate_by_position


class LayerCache(NamedTuple):
    """Keys and values of one layer, each [B, S, G, K]; keys are already rotated."""

    keys: Any
    values: Any


def prefill(decoder: Decoder, tokens_BT: Any) -> tuple[Any, list[LayerCache]]:
    """Reads texts that begin at the left: int32 [B, T] -> hidden [B, T, D] and caches, S = T.

    What stands right of a text's end does not influence it, as no token looks ahead.
    """
    batch, length = tf.shape(tokens_BT)[0], tf.shape(tokens_BT)[1]
    steps = tf.range(length)
    mask_1TT = (steps[:, None] >= steps[None, :])[None]
    return _run(decoder, tokens_BT, tf.broadcast_to(steps[None], [batch, length]), mask_1TT, None)


def widen(caches: list[LayerCache], slots: Any) -> list[LayerCache]:
    """Adds empty slots at the right, up to `slots` of them (a scalar of int32)."""

    def pad(x_BSGK):
        return tf.pad(x_BSGK, [[0, 0], [0, slots - tf.shape(x_BSGK)[1]], [0, 0], [0, 0]])

    return [LayerCache(pad(c.keys), pad(c.values)) for c in caches]


def decode_step(
    decoder: Decoder, tokens_B: Any, positions_B: Any, caches: list[LayerCache]
) -> tuple[Any, list[LayerCache]]:
    """One token for each text, at its own position: int32 [B] twice -> hidden [B, D], caches.

    Slot s of the cache is position s. A token attends to its own slot and those left of it.
    """
    slots = tf.shape(caches[0].keys)[1]
    mask_B1S = (tf.range(slots)[None] <= positions_B[:, None])[:, None]
    hidden_B1D, caches = _run(decoder, tokens_B[:, None], positions_B[:, None], mask_B1S, caches)
    return hidden_B1D[:, 0], caches


def _run(decoder, tokens_BT, positions_BT, mask_BTS, caches):
    x_BTD = decoder.token_embedding(tokens_BT)
    if decoder.position_embedding is not None:
        x_BTD = x_BTD + decoder.position_embedding(positions_BT)
    new_caches = []
    for i, (attention_norm, attention, mlp_norm, mlp) in enumerate(decoder.blocks):
        q_BTHK, k_BTGK, v_BTGK = _heads(
            decoder.shape_config, attention, attention_norm(x_BTD), positions_BT
        )
        if caches is None:
            cache = LayerCache(k_BTGK, v_BTGK)
        else:
            cache = _write(caches[i], positions_BT[:, 0], k_BTGK[:, 0], v_BTGK[:, 0])
        mixed = _attend(decoder.shape_config, q_BTHK, cache, mask_BTS)
        x_BTD = x_BTD + attention.output_projection(mixed)
        x_BTD = x_BTD + mlp(mlp_norm(x_BTD))
        new_caches.append(cache)
    return decoder.final_norm(x_BTD), new_caches


def _heads(shape, attention, x_BTD, positions_BT):
    rows, length = tf.shape(x_BTD)[0], tf.shape(x_BTD)[1]

    def split(x, heads):
        return tf.reshape(x, [rows, length, heads, shape.head_dim])

    q_BTHK = split(attention.query(x_BTD), shape.n_heads)
    k_BTGK = split(attention.key(x_BTD), shape.kv_heads)
    v_BTGK = split(attention.value(x_BTD), shape.kv_heads)
    if shape.positions == "rope":
        q_BTHK = rotate_by_position(q_BTHK, positions_BT)
        k_BTGK = rotate_by_position(k_BTGK, positions_BT)
    return q_BTHK, k_BTGK, v_BTGK


def _write(cache, positions_B, k_BGK, v_BGK):
    slots_B2 = tf.stack([tf.range(tf.shape(positions_B)[0]), positions_B], axis=1)
    return LayerCache(
        tf.tensor_scatter_nd_update(cache.keys, slots_B2, k_BGK),
        tf.tensor_scatter_nd_update(cache.values, slots_B2, v_BGK),
    )


def _attend(shape, q_BTHK, cache, mask_BTS):
    """Grouped queries against the cache, without repeating it: -> [B, T, H * K]."""
    rows, length = tf.shape(q_BTHK)[0], tf.shape(q_BTHK)[1]
    repeats = shape.n_heads // shape.kv_heads
    q_BTGRK = tf.reshape(q_BTHK, [rows, length, shape.kv_heads, repeats, shape.head_dim])
    scores = ops.einsum("btgrk,bsgk->bgrts", q_BTGRK, cache.keys) / shape.head_dim**0.5
    scores = ops.where(mask_BTS[:, None, None], ops.cast(scores, "float32"), -1e9)
    weights = ops.cast(ops.softmax(scores, axis=-1), cache.values.dtype)
    mixed = ops.einsum("bgrts,bsgk->btgrk", weights, cache.values)
    return tf.reshape(mixed, [rows, length, shape.n_heads * shape.head_dim])
