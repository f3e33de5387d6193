"""Weights and tokens drawn by numpy, the same on every machine: 500 MB need not be carried along.

A weight's numbers depend on its place in the model and nothing else. numpy only, since the machine
that runs lowered programs has no TensorFlow.
"""

import numpy as np

DOCUMENTS_PER_ROW = 4


def weight(index: int, shape: list[int], mean: float, stddev: float) -> np.ndarray:
    """Return the initial float32 values of the weight at a place.

    Args:
        index: Place among the model's weights.
        shape: Of the weight.
        mean: 1 for the scale of a norm, else 0.
        stddev: 0 for biases and norms.
    """
    values = np.full(shape, mean, np.float32)
    if stddev:
        noise = np.random.default_rng([20240607, index]).standard_normal(shape, np.float32)
        values += np.float32(stddev) * noise
    return values


def batch(rows: int, length: int, vocab_size: int) -> list[np.ndarray]:
    """Return inputs, targets, segment ids, positions (int32) and loss weights (float32), [B, T].

    Tokens follow Zipf's law, so that there is something to learn; a row has four documents.
    """
    share = 1.0 / np.arange(1, vocab_size + 1)
    edges = np.cumsum(share / share.sum())
    drawn = np.random.default_rng(7).random((rows, length + 1))
    tokens = np.minimum(np.searchsorted(edges, drawn), vocab_size - 1)
    positions = np.arange(length) % -(-length // DOCUMENTS_PER_ROW)
    ids = (tokens[:, :-1], tokens[:, 1:], np.cumsum(positions == 0), positions)
    wide = [np.ascontiguousarray(np.broadcast_to(x, (rows, length)), np.int32) for x in ids]
    return [*wide, np.ones((rows, length), np.float32)]
