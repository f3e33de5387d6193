"""Rotary position embedding (Su et al. 2021), and how its frequencies are lowered for long texts.

Shape suffixes as in layers.py.
"""

from typing import Any

import numpy as np
from keras import ops

from tokenmill.model.shape import ModelShape


def rope_frequencies(shape: ModelShape) -> np.ndarray:
    """Return the angle by which each pair of features turns from one position to the next.

    Computed in float64, since an error is multiplied by the position.

    Returns:
        float32 [K / 2], radians, falling.
    """
    half = shape.head_width // 2
    frequencies = shape.rope_base ** -(np.arange(half) / half)
    if shape.rope_scaling == "linear":
        frequencies = frequencies / shape.rope_factor
    elif shape.rope_scaling == "llama3":
        turns = shape.rope_original_length * frequencies / (2 * np.pi)  # in a whole sequence
        low, high = shape.rope_low_frequency_factor, shape.rope_high_frequency_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = (1 - kept) * frequencies / shape.rope_factor + kept * frequencies
    return frequencies.astype(np.float32)


def rotate_by_position(x_BTHK: Any, positions_BT: Any, frequencies: np.ndarray) -> Any:
    """Turn each pair of features by its frequency times the position; halves paired as in GPT-NeoX.

    Args:
        x_BTHK: Queries or keys.
        positions_BT: Positions within the documents.
        frequencies: float32 [K / 2], of `rope_frequencies`.
    """
    half = len(frequencies)
    angles = ops.cast(positions_BT, "float32")[:, :, None, None] * frequencies
    cos, sin = ops.cast(ops.cos(angles), x_BTHK.dtype), ops.cast(ops.sin(angles), x_BTHK.dtype)
    first, second = x_BTHK[..., :half], x_BTHK[..., half:]
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
