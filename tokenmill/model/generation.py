"""The decoder with a cache of keys and values: each new token costs one row, not the whole text.

The layers are the decoder's own; only how they are called differs. Every length may be unknown
when the graph is built.

Shape suffixes as in layers.py, and S: slots of the cache.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from tokenmill.model.decoder import Decoder
from tokenmill.model.layers import MASKED_SCORE, Dropout, attend


class LayerCache(NamedTuple):
    """Keys and values of one layer, each [B, G, S, K]; keys are already rotated."""

    keys: Any
    values: Any


def prefill(decoder: Decoder, tokens_BT: Any) -> tuple[Any, list[LayerCache]]:
    """Read texts that begin at the left: int32 [B, T] -> hidden [B, T, D] and caches, S = T.

    What stands right of a text's end does not influence it, as no token looks ahead.
    """
    batch, length = tf.shape(tokens_BT)[0], tf.shape(tokens_BT)[1]
    steps = tf.range(length)
    mask_1TT = (steps[:, None] >= steps[None, :])[None]
    return _run(decoder, tokens_BT, tf.broadcast_to(steps[None], [batch, length]), mask_1TT, None)


def widen(caches: list[LayerCache], slots: Any) -> list[LayerCache]:
    """Add empty slots at the right, until each cache has `slots` of them (an int32 scalar)."""

    def pad(x_BGSK):
        return tf.pad(x_BGSK, [[0, 0], [0, 0], [0, slots - tf.shape(x_BGSK)[2]], [0, 0]])

    return [LayerCache(pad(c.keys), pad(c.values)) for c in caches]


def decode_step(
    decoder: Decoder, tokens_B: Any, positions_B: Any, caches: list[LayerCache]
) -> tuple[Any, list[LayerCache]]:
    """Run one token of each text, at its own position: int32 [B] twice -> hidden [B, D], caches.

    Slot s of the cache is position s. A token attends to its own slot and those left of it.
    """
    slots = tf.shape(caches[0].keys)[2]
    mask_B1S = (tf.range(slots)[None] <= positions_B[:, None])[:, None]
    hidden_B1D, caches = _run(decoder, tokens_B[:, None], positions_B[:, None], mask_B1S, caches)
    return hidden_B1D[:, 0], caches


def decode_beside(
    decoder: Decoder, tokens_B: Any, positions_B: Any, caches: list[LayerCache]
) -> tuple[Any, list[LayerCache]]:
    """Run one token of each text as `decode_step` does, but leave the caches as they are.

    Whoever keeps the caches writes the new row into them: they may be large, and it is small.

    Args:
        decoder: The model.
        tokens_B: int32 [B].
        positions_B: int32 [B]; slots of the cache from there on are not looked at.
        caches: Slots of the texts before the token.

    Returns:
        hidden [B, D], and the keys and values of the token in each layer, [B, G, 1, K].
    """
    slots = tf.shape(caches[0].keys)[2]
    mask_B1S = (tf.range(slots)[None] < positions_B[:, None])[:, None]
    hidden_B1D, rows = _run(
        decoder, tokens_B[:, None], positions_B[:, None], mask_B1S, caches, writes=False
    )
    return hidden_B1D[:, 0], rows


def _run(decoder, tokens_BT, positions_BT, mask_BTS, caches, writes=True):
    x_ND = decoder.embed(tokens_BT, positions_BT, Dropout(0.0, None))
    new_caches = []
    for i, block in enumerate(decoder.blocks):
        attention = block.attention
        q_BHTK, k_BGTK, v_BGTK = attention.heads(block.attention_norm(x_ND), positions_BT)
        cache = LayerCache(k_BGTK, v_BGTK)
        if caches is not None and writes:
            cache = _write(caches[i], positions_BT[:, 0], k_BGTK, v_BGTK)
        if writes:
            attended = _attend(q_BHTK, cache, mask_BTS)
        else:
            attended = _attend_beside(q_BHTK, caches[i], cache, mask_BTS)
        x_ND = x_ND + attention.project(attended)
        x_ND = x_ND + block.mlp(block.mlp_norm(x_ND))
        new_caches.append(cache)
    hidden = decoder.final_norm(x_ND)
    return tf.reshape(hidden, [*tf.unstack(tf.shape(tokens_BT)), hidden.shape[-1]]), new_caches


def _write(cache, positions_B, k_BG1K, v_BG1K):
    batch, groups = tf.shape(positions_B)[0], cache.keys.shape[1]
    places = [tf.range(batch)[:, None], tf.range(groups)[None], positions_B[:, None]]
    slots_BG3 = tf.stack([tf.broadcast_to(x, [batch, groups]) for x in places], axis=-1)
    return LayerCache(
        tf.tensor_scatter_nd_update(cache.keys, slots_BG3, k_BG1K[:, :, 0]),
        tf.tensor_scatter_nd_update(cache.values, slots_BG3, v_BG1K[:, :, 0]),
    )


def _attend(q_BHTK, cache, mask_BTS):
    """Attend with grouped queries to the cache, without repeating it: -> [B, H, T, K]."""
    groups, width = cache.keys.shape[1], q_BHTK.shape[-1]
    rows, heads, length = tf.shape(q_BHTK)[0], q_BHTK.shape[1], tf.shape(q_BHTK)[2]
    # The query heads of a group lie beside each other; they become more rows of one product.
    q = tf.reshape(q_BHTK, [rows, groups, heads // groups * length, width])
    mask = tf.tile(mask_BTS[:, None], [1, 1, heads // groups, 1])
    return tf.reshape(attend(q, cache.keys, cache.values, mask), [rows, heads, length, width])


def _attend_beside(q_BHTK, cache, own, mask_BTS):
    """Attend as `_attend` does, to the cache and to the token's own key and value, T = 1."""
    groups, width = cache.keys.shape[1], q_BHTK.shape[-1]
    rows, heads = tf.shape(q_BHTK)[0], q_BHTK.shape[1]
    q_BGRK = tf.reshape(q_BHTK, [rows, groups, heads // groups, width])
    scale = width**0.5
    scores = tf.cast(tf.matmul(q_BGRK, cache.keys, transpose_b=True), tf.float32) / scale
    scores = tf.where(mask_BTS[:, None], scores, MASKED_SCORE)
    own_score = tf.cast(tf.matmul(q_BGRK, own.keys, transpose_b=True), tf.float32) / scale
    weights = tf.nn.softmax(tf.concat([scores, own_score], -1))
    weights = tf.cast(weights, cache.values.dtype)
    before = tf.matmul(weights[..., :-1], cache.values)
    return tf.reshape(before + weights[..., -1:] * own.values, [rows, heads, 1, width])
