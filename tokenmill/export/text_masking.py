"""Masking of tokens inside the served graph, so that a masked language model can be scored.

What is hidden is a pure function of the text's tokens: each token, or word, is drawn by a hash of
the whole text and its place in it. The same text is hidden in the same way wherever and whenever
it is evaluated, beside whatever other texts, and by every model of the same tokenizer and rate, so
that models can be compared. Rates and actions are those of tokenmill/rows/masking.py (80 % MASK,
10 % a random token, 10 % as it is); the draw itself is another one, as rows do not exist here.
"""

import numpy as np
import tensorflow as tf

from tokenmill.rows.masking import MASKED, RANDOM, MaskSettings
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.token_flags import CONTROL, ENDS_WORD, STARTS_WORD

_RESOLUTION = 2**24  # float32 holds every integer up to it


class TextMasking(tf.Module):
    """The fixed choice of a text's hidden tokens, for one vocabulary.

    Args:
        settings: Share and unit of what is hidden.
        flags: Of the vocabulary's tokens (tokenmill/rows/token_flags.py), uint8 [vocab_size].
    """

    def __init__(self, settings: MaskSettings, flags: np.ndarray):
        super().__init__()
        self._settings = settings
        self._ordinary = np.flatnonzero(flags & CONTROL == 0).astype(np.int32)
        self._starts = (flags & STARTS_WORD) > 0
        self._ends = (flags & ENDS_WORD) > 0

    def hide(self, ids: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Hide tokens: int32 ragged [batch, tokens] -> the model's input, float32 1 at targets."""
        text = self._fingerprints(ids)
        place = tf.ragged.range(ids.row_lengths()).flat_values
        unit = self._words(ids) if self._settings.whole_word else place
        whether = _uniform(text, "unit", unit)
        action = _uniform(text, "token", place)
        drawn = whether < self._settings.rate
        size = len(self._ordinary)
        choice = tf.cast(_uniform(text, "choice", place) * size, tf.int32)
        chosen = tf.gather(self._ordinary, tf.minimum(choice, size - 1))
        hidden = tf.where(drawn & (action < MASKED), self._settings.mask_id, ids.flat_values)
        hidden = tf.where(drawn & (action >= MASKED) & (action < RANDOM), chosen, hidden)
        return ids.with_flat_values(hidden), ids.with_flat_values(tf.cast(drawn, tf.float32))

    def _fingerprints(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Return at each token the hash of its text, string [tokens of all texts]."""
        words = ids.with_flat_values(tf.strings.as_string(ids.flat_values))
        joined = tf.strings.reduce_join(words, axis=1, separator=" ")
        hashed = tf.strings.as_string(tf.strings.to_hash_bucket_fast(joined, 2**62))
        return tf.gather(hashed, ids.value_rowids())

    def _words(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Number each token's word, from 0 in every text; int64 [tokens of all texts]."""
        tokens = ids.flat_values
        ends_before = tf.concat([[True], tf.gather(self._ends, tokens)], 0)[:-1]
        rows = ids.value_rowids()
        new_text = tf.concat([[True], rows[1:] != rows[:-1]], 0)[: tf.size(rows)]
        starts = tf.gather(self._starts, tokens) | ends_before | new_text
        number = tf.cumsum(tf.cast(starts, tf.int64))
        first = tf.math.unsorted_segment_min(number, rows, ids.nrows())
        return number - tf.gather(first, rows)


def masking_of(split: PackedSplit) -> TextMasking | None:
    """Return what an exported model's evaluation hides, as in its rows; None in causal mode."""
    if split.task != "masked-lm":
        return None
    return TextMasking(split.mask_settings(), split.token_flags())


def _uniform(text: tf.Tensor, use: str, number: tf.Tensor) -> tf.Tensor:
    """Draw a float32 in [0, 1) for each number; another one for each text and use."""
    keys = tf.strings.join([text, tf.strings.as_string(number)], separator=f" {use} ")
    # FarmHash64, which TensorFlow promises never to change.
    return tf.cast(tf.strings.to_hash_bucket_fast(keys, _RESOLUTION), tf.float32) / _RESOLUTION
