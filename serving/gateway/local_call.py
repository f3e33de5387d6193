"""Calls of a loaded model whose caches are not copied for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from serving.gateway.signature_steps import SignatureSteps
from serving.gateway.steps import SamplerArrays
from tokenmill.model.shape import ModelShape

_ALIGNMENT_BYTES = 64  # that TensorFlow demands of a tensor's memory; else it ends the process


def local_steps(
    functions: Mapping[str, Callable], shape: ModelShape, padding: int
) -> SignatureSteps:
    """Make the steps of a model in this process.

    Args:
        functions: Signatures of the loaded SavedModel.
        shape: Sizes of the model.
        padding: Fills ids up.
    """

    def call(signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        tensors = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        outputs = functions[signature](**tensors)
        return {name: value.numpy() for name, value in outputs.items()}

    return SignatureSteps(call, shape, padding, _aligned_zeros, _shared_tensor)


def warm_up(steps: SignatureSteps, token_id: int) -> None:
    """Do each kind of step once, so that no client waits for the graphs to be prepared."""
    one = np.ones(1, np.int32)
    for temperature in (0, 1):
        sampler = SamplerArrays(
            one, np.full(1, temperature, np.float32), one, one.astype(np.float32), one
        )
        steps.sample(steps.change([], [[token_id]], 2), sampler)
    steps.step(one * token_id, one)
    steps.clear()


def _aligned_zeros(shape: Sequence[int]) -> np.ndarray:
    """Make a float32 array whose memory a tensor can share."""
    size = int(np.prod(shape))
    raw = np.zeros(size + _ALIGNMENT_BYTES // 4, np.float32)
    start = -raw.ctypes.data % _ALIGNMENT_BYTES // 4
    return raw[start : start + size].reshape(shape)


def _shared_tensor(array: np.ndarray) -> tf.Tensor:
    """Return a tensor with the array's own memory.

    A tensor is thought to stay as it is. This one is read within calls only, and written between
    them, by one thread.
    """
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
