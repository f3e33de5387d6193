"""The trained low-rank pair of matrices beside a frozen linear layer (LoRA, Hu et al. 2021).

Shape suffixes as in layers.py; M features in, R rank, O features out.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

# Kaiming uniform with a = sqrt(5), as PEFT has it: from -1/sqrt(M) to 1/sqrt(M).
_KAIMING_SCALE = 1 / 3


class Adapter(keras.layers.Layer):
    """What is added to a frozen linear layer's output: scale * (x A) B; nothing before training.

    Args:
        features: Features in and out.
        rank: Columns of A and rows of B.
        scale: Factor of the product.
        seed: Of A; B starts at 0.
        dtype: The policy of the computation; A and B are float32 in all but half precision.
        name: The layer's name.
    """

    def __init__(
        self, features: tuple[int, int], rank: int, scale: float, seed: int, dtype: Any, name: str
    ):
        super().__init__(dtype=dtype, name=name)
        self._features, self._rank, self.scale = features, rank, scale
        self._initializer = keras.initializers.VarianceScaling(
            _KAIMING_SCALE, "fan_in", "uniform", seed
        )

    def build(self, input_shape):
        """Create A and B for inputs [N, M]."""
        inputs, outputs = self._features
        self.a_MR = self.add_weight((inputs, self._rank), self._initializer, name="lora_a")
        self.b_RO = self.add_weight((self._rank, outputs), "zeros", name="lora_b")
        self.built = True

    def call(self, x_NM):
        """Compute the addition: [N, M] -> [N, O]."""
        return ops.matmul(ops.matmul(x_NM, self.a_MR) * self.scale, self.b_RO)

    def matrix(self) -> np.ndarray:
        """Return what it adds to the linear layer's kernel, float32 [M, O]."""
        a, b = (np.asarray(ops.convert_to_numpy(x), np.float32) for x in (self.a_MR, self.b_RO))
        return (self.scale * a) @ b
