"""Masked language modelling (Devlin et al. 2018): tokens are hidden when rows are read.

Of the tokens drawn, 80 % become MASK, 10 % a random token, 10 % stay; all are targets. The draw is
a pure function of (seed, epoch, row): the same wherever and whenever a row is read, and another one
every epoch. The random bits come from the counter-based generator Philox (Salmon et al. 2011),
keyed by (seed, epoch), its counter starting at the row's own range.
"""

from dataclasses import dataclass

import numpy as np

from tokenmill.rows.codec import Batch
from tokenmill.rows.token_flags import CONTROL, word_starts
from tokenmill.text.vocabulary import MASK_ID

# Held-out rows are always masked in the same way, whatever the run's seed.
EVALUATION_SEED, EVALUATION_EPOCH = 0, 2**32

MASKED, RANDOM = 0.8, 0.9  # below the first: MASK; below the second: a random token


@dataclass(frozen=True)
class MaskSettings:
    """How tokens are hidden.

    Attributes:
        rate: Share of the tokens (or, with whole_word, of the words) that are targets.
        whole_word: Hide all tokens of a word together (Devlin's later release; Cui et al. 2019).
        mask_id: What most hidden tokens become.
    """

    rate: float
    whole_word: bool
    mask_id: int = MASK_ID


def mask_batch(
    batch: Batch,
    row_numbers: np.ndarray,
    epochs: np.ndarray,
    seed: int,
    settings: MaskSettings,
    flags: np.ndarray,
) -> Batch:
    """Hide tokens of a framed batch.

    Args:
        batch: As densify gives it: inputs == targets, weight 1 where a token may be hidden.
        row_numbers: Row of the split that each row of the batch is, int64 [rows].
        epochs: How often each of these rows has been read before, int64 [rows].
        seed: Of the run.
        settings: Rate and unit.
        flags: Of the vocabulary's tokens, uint8 [vocab_size].

    Returns:
        The batch with corrupted inputs and weight 1 at the places drawn only.
    """
    rows, length = batch.inputs.shape
    bits = np.empty((rows, length), np.uint64)
    for i, (row, epoch) in enumerate(zip(row_numbers.tolist(), epochs.tolist(), strict=True)):
        # The row stands in a word of the counter that drawing does not reach.
        generator = np.random.Philox(key=[seed, epoch], counter=[0, row, 0, 0])
        bits[i] = generator.random_raw(length)
    # 24 bits decide whether, 16 what to do, 24 which random token.
    whether = (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    action = ((bits >> np.uint64(24)) & np.uint64(0xFFFF)).astype(np.float32) / np.float32(2**16)
    if settings.whole_word:
        starts = word_starts(batch.inputs, flags)
        starts[:, 1:] |= batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
        # Context and frame are no part of a word that can be hidden.
        starts[:, 1:] |= batch.loss_weights[:, 1:] != batch.loss_weights[:, :-1]
        first = np.maximum.accumulate(np.where(starts, np.arange(length), 0), axis=1)
        whether = np.take_along_axis(whether, first, axis=1)
    candidates = (batch.loss_weights > 0) & (flags[batch.inputs] & CONTROL == 0)
    drawn = candidates & (whether < settings.rate)
    ordinary = np.flatnonzero(flags & CONTROL == 0).astype(np.int32)
    choice = ((bits & np.uint64(0xFFFFFF)) * np.uint64(len(ordinary))) >> np.uint64(24)
    inputs = np.where(drawn & (action < MASKED), np.int32(settings.mask_id), batch.inputs)
    replaced = drawn & (action >= MASKED) & (action < RANDOM)
    inputs = np.where(replaced, ordinary[choice.astype(np.int64)], inputs)
    return batch._replace(inputs=inputs, loss_weights=drawn.astype(np.float32))
