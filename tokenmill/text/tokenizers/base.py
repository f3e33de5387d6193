"""The interface that all kinds of tokenizers have."""

from __future__ import annotations

import abc

import tensorflow as tf

from tokenmill.text.control_ids import ControlIds


class Tokenizer(abc.ABC):
    """Text to token ids and back, in TensorFlow's graph.

    Attributes:
        vocab_size: Ids are from 0 to vocab_size - 1.
        control_ids: Ids of control tokens. No text becomes one of them.
        token_bytes: What each id stands for, UTF-8; perhaps only a part of a character. None for
            control tokens and ids that nothing uses. A word that the tokenizer parts from others by
            a blank of its own begins with that blank.
    """

    vocab_size: int
    control_ids: ControlIds
    token_bytes: tuple[bytes | None, ...]

    def resources(self) -> list[tf.Module]:
        """Return the ops that hold a model: who saves a function of this has to track them."""
        return []

    @abc.abstractmethod
    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize texts: string [batch] -> int32, ragged [batch, tokens].

        Bytes that are not UTF-8 become U+FFFD first. Nothing is put before or after a text.
        """

    @abc.abstractmethod
    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Turn ids into text: int32, ragged [batch, tokens] -> string [batch], UTF-8.

        Control tokens are left out; bytes that do not make up a character become U+FFFD.
        """


def token_strings(token_bytes: tuple[bytes | None, ...]) -> tf.Tensor:
    """Return what ids stand for, string [vocab_size + 1]; "" for control tokens and at the end."""
    return tf.constant([*(value or b"" for value in token_bytes), b""], tf.string)


def join_tokens(strings: tf.Tensor, ids: tf.RaggedTensor) -> tf.Tensor:
    """Join what ids stand for: of `token_strings`, ragged [batch, tokens] -> string [batch].

    A model's embedding may have more rows than there are tokens: such ids stand for nothing.
    """
    known = ids.with_flat_values(tf.minimum(ids.flat_values, tf.size(strings) - 1))
    joined = tf.strings.reduce_join(tf.gather(strings, known), axis=1)
    # Not repair_utf8, which takes surrogates and overlong forms for characters, as RE2 does.
    return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8")
