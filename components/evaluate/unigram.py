"""The baseline that a language model must beat: token frequencies, no context."""

import math

import numpy as np


def unigram_bits_per_byte(
    train_counts: np.ndarray, held_out_counts: np.ndarray, held_out_bytes: int
) -> float:
    """Bits per byte of a unigram model of the training tokens on the held-out tokens.

    Probabilities are add-one smoothed (Laplace), so that a token unseen in training costs a
    finite number of bits. Document ends count as tokens on both sides.

    Args:
        train_counts: How often each id is a target in training, int [vocab_size].
        held_out_counts: The same for the held-out split.
        held_out_bytes: Bytes of the held-out text.
    """
    probabilities = (train_counts + 1.0) / (train_counts.sum() + len(train_counts))
    bits = -float(held_out_counts @ np.log2(probabilities))
    return bits / held_out_bytes if held_out_bytes else math.nan
