"""Steps of a model in this process: the cache stays in TensorFlow's memory and is written there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from serving.gateway.steps import SamplerArrays, pad_prompts
from tokenmill.export.step_signatures import cache_names
from tokenmill.model.shape import ModelShape


class LocalSteps:
    """Texts that a loaded SavedModel continues.

    Args:
        functions: Its signatures.
        shape: Sizes of the model.
        padding: Fills ids up.
    """

    def __init__(self, functions: Mapping[str, Any], shape: ModelShape, padding: int):
        self._functions, self._padding = functions, padding
        heads, width = shape.key_value_heads, shape.head_width
        self._empty = tf.zeros([0, heads, 0, width])
        self._cache = {
            name: tf.Variable(self._empty, trainable=False, shape=[None, heads, None, width])
            for name in cache_names(shape.layers)
        }
        numbers = tf.TensorSpec([None], tf.int32)
        self._step = tf.function(
            self._step_in_graph, input_signature=[numbers, numbers], autograph=False
        )
        self._change = tf.function(
            self._change_in_graph,
            input_signature=[
                numbers,
                tf.TensorSpec([], tf.int32),
                {
                    name: tf.TensorSpec(variable.shape, variable.dtype)
                    for name, variable in self._cache.items()
                },
            ],
            autograph=False,
        )

    def change(
        self, kept: Sequence[int], prompts: Sequence[Sequence[int]], slots: int
    ) -> np.ndarray:
        """Let texts leave and join; the logits after each prompt."""
        if prompts:
            ids = pad_prompts(prompts, self._padding)
            outputs = dict(self._functions["prefill_ids"](token_ids=tf.constant(ids)))
            logits = outputs.pop("logits").numpy()
        else:
            outputs = dict.fromkeys(self._cache, self._empty)
            logits = np.zeros([0, 0], np.float32)
        self._change(tf.constant(kept, tf.int32), tf.constant(slots), outputs)
        return logits

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Read one token of each text; the logits after it."""
        return self._step(tf.constant(tokens), tf.constant(positions)).numpy()

    def sample(self, logits: np.ndarray, sampler: SamplerArrays) -> np.ndarray:
        """Choose the next tokens."""
        options = {name: tf.constant(value) for name, value in sampler._asdict().items()}
        chosen = self._functions["sample"](logits=tf.constant(logits), **options)
        return chosen["token_ids"].numpy()

    def clear(self) -> None:
        """Forget all texts."""
        for variable in self._cache.values():
            variable.assign(self._empty)

    def _step_in_graph(self, tokens: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        outputs = dict(
            self._functions["decode_ids"](
                token_ids=tokens,
                positions=positions,
                **{name: variable.read_value() for name, variable in self._cache.items()},
            )
        )
        logits = outputs.pop("logits")
        # Written when nobody reads any more: in place, without a copy.
        with tf.control_dependencies([logits, *outputs.values()]):
            for name, row in outputs.items():
                rows, heads = tf.shape(row)[0], row.shape[1]
                places = (tf.range(rows)[:, None], tf.range(heads)[None], positions[:, None])
                indices = [tf.broadcast_to(place, [rows, heads]) for place in places]
                self._cache[name].scatter_nd_update(tf.stack(indices, axis=-1), row)
            return tf.identity(logits)

    def _change_in_graph(
        self, kept: tf.Tensor, slots: tf.Tensor, joined: dict[str, tf.Tensor]
    ) -> None:
        for name, variable in self._cache.items():
            stays = _fit(tf.gather(variable.read_value(), kept), slots)
            variable.assign(tf.concat([stays, _fit(joined[name], slots)], axis=0))


def _fit(cache: tf.Tensor, slots: tf.Tensor) -> tf.Tensor:
    """Cut a cache at the right, or fill it up, to have `slots` slots."""
    cut = cache[:, :, :slots]
    return tf.pad(cut, [[0, 0], [0, 0], [0, slots - tf.shape(cut)[2]], [0, 0]])
