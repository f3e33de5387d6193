"""Smaller weights in a SavedModel: half precision, or 8-bit integers with a scale a channel.

The weights are stored small and widened when a signature runs, so the arithmetic stays float32:
this saves disk, transfer and memory at rest, not time. The loss of quality is measured, not
assumed: the Evaluator scores the SavedModel that is pushed, with the weights it is pushed with.
"""

from typing import Any

import tensorflow as tf

from tokenmill.contracts.served_model import Quantization


class StoredWeights(tf.Module):
    """The variables of a layer, stored as `kind`.

    int8 is symmetric, q = round(w / s) with s = max|w| / 127: one s for each output channel (last
    axis) of a matrix, for each row of an embedding. Vectors and routers of experts stay float32.

    Args:
        layer: A built Keras layer; its own variables are read, and not saved.
        kind: float16, bfloat16 or int8.
    """

    def __init__(self, layer: Any, kind: Quantization):
        super().__init__()
        # A function, not a list: what a module holds in a list is saved with it.
        self._variables_of_layer = lambda: layer.variables
        self.stored, self.scales = [], []
        for variable in layer.variables:
            value = tf.cast(tf.convert_to_tensor(variable), tf.float32)
            # A vector is a bias or a norm, and a router chooses: little to save, much to lose.
            # Biases of experts are vectors, too, one for each.
            is_bias = variable.path.endswith("_bias")
            kept = value.shape.rank < 2 or is_bias or "router" in variable.path
            dtype = tf.float32 if kept else tf.as_dtype(kind)
            if dtype == tf.int8:
                axis = 1 if "embeddings" in variable.path else -2  # each expert has its own
                peak = tf.reduce_max(tf.abs(value), axis=axis, keepdims=True)
                scale = tf.where(peak > 0, peak / 127.0, 1.0)
                value = tf.round(value / scale)
            else:
                scale = tf.ones([])
            self.stored.append(tf.Variable(tf.cast(value, dtype), trainable=False))
            self.scales.append(tf.Variable(scale, trainable=False))

    def mapping(self) -> list[tuple[Any, tf.Tensor]]:
        """Return pairs of Keras variable and float32 tensor, for `keras.StatelessScope`."""
        widened = [
            tf.cast(value, tf.float32) * scale
            for value, scale in zip(self.stored, self.scales, strict=True)
        ]
        return list(zip(self._variables_of_layer(), widened, strict=True))
