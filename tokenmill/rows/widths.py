"""Widths of a classifier's rows: they double from 32 up to sequence_length.

A step is compiled for a handful of shapes, and short documents cost little padding.
"""

import numpy as np

_FIRST_WIDTH = 32


def widths(sequence_length: int) -> list[int]:
    """List the widths of the buckets, ascending; the last is sequence_length."""
    result = []
    width = _FIRST_WIDTH
    while width < sequence_length:
        result.append(width)
        width *= 2
    return [*result, sequence_length]


def widths_of(row_lengths: np.ndarray, sequence_length: int) -> np.ndarray:
    """Return the width of each row's bucket, int64 [rows]."""
    bounds = np.array(widths(sequence_length), np.int64)
    return bounds[np.searchsorted(bounds, row_lengths)]
