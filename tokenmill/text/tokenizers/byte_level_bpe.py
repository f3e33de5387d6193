r"""Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) in TensorFlow's graph.

TensorFlow has no op for it, but SentencePiece's BPE does the same merges if each byte of a word is
made a character: byte b becomes U+00b (Latin-1). So a text is cut into words by the model's own
regular expression; words that are tokens are looked up; the rest goes to SentencePiece's op with a
model over Latin-1 (importing/byte_level_bpe.py makes it). RE2 has no look-ahead: the place where
`\s+(?!\S)` would end a word is marked by an expression of its own first.
"""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from tokenmill.text.tokenization import MARK, repair_utf8, tokenize_strings, tokenize_unique
from tokenmill.text.tokenizers.base import Tokenizer, join_tokens, token_strings
from tokenmill.text.tokenizers.compiled import CompiledFile

MODEL, WORD_HASHES, WORD_IDS = "latin-1.model", "word_hashes.npy", "word_ids.npy"
"""Parts of the file: the model over Latin-1; FarmHash64 of words that are tokens, ascending int64
[n]; their ids, int32 [n]."""
LONGEST_WORD = 1 << 20
"""Bytes of a word, as Latin-1 in UTF-8, above which it is cut: the op takes 80 times its memory."""
_BUCKETS = 2**63 - 1


def hash_words(words: tf.Tensor) -> tf.Tensor:
    """Hash string [n] to int64 [n] by FarmHash64, which TensorFlow promises never to change."""
    return tf.strings.to_hash_bucket_fast(words, _BUCKETS)


class ByteLevelBpe(Tokenizer):
    """A byte-level BPE tokenizer.

    Args:
        file: A compiled tokenizer of this kind.
    """

    def __init__(self, file: CompiledFile):
        self._settings = file.description
        self.vocab_size = file.description.vocab_size
        self.control_ids = file.description.control_ids
        self.token_bytes = file.token_bytes
        self._op = tf_text.SentencepieceTokenizer(file.parts[MODEL], out_type=tf.int32)
        self._hashes = file.array(WORD_HASHES)
        self._ids = file.array(WORD_IDS)
        words = [file.token_bytes[i] or b"" for i in self._ids.tolist()]
        self._whole_words = np.array(words, object)

    def resources(self) -> list[tf.Module]:
        """Return the ops that hold a model."""
        return [self._op]

    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize texts: string [batch] -> int32, ragged [batch, tokens]."""
        text = repair_utf8(text)
        if not self._settings.added:
            return tokenize_unique(self._words(self._prepared(text)), self._encode)
        parts = self._cut_at_added(text)
        place = tf.ragged.range(parts.row_lengths()).flat_values
        flat = parts.flat_values
        # Between two marks stands an added token: every second part is one.
        ordinary = self._mark_words(self._prepared(flat))
        words = tf.strings.split(tf.where(place % 2 == 1, flat, ordinary), MARK)
        words = words.with_row_splits_dtype(tf.int64)
        of_texts = tf.RaggedTensor.from_row_splits(
            words.flat_values, tf.gather(words.row_splits, parts.row_splits), validate=False
        )
        return tokenize_unique(of_texts, self._encode)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Turn ids into text: int32, ragged [batch, tokens] -> string [batch]."""
        return join_tokens(token_strings(self.token_bytes), ids)

    def _cut_at_added(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Cut string [batch] into ragged [batch, parts]; those of odd places are added tokens."""
        any_added = "|".join(map(_quote, self._settings.added))
        marked = tf.strings.regex_replace(text, any_added, MARK + rb"\0" + MARK)
        return tf.strings.split(marked, MARK)

    def _prepared(self, text: tf.Tensor) -> tf.Tensor:
        """Normalize string [n] and put the blank before it, as settings say."""
        if self._settings.nfc:
            ascii_only = tf.strings.regex_full_match(text, r"(?s)[\x00-\x7f]*")
            text = tf.cond(
                tf.reduce_all(ascii_only),
                lambda: text,
                lambda: tf_text.normalize_utf8(text, "NFC"),
            )
        return prefixed(text, self._settings.prefix, " ")

    def _mark_words(self, text: tf.Tensor) -> tf.Tensor:
        """Put MARK before each word of string [n]."""
        if self._settings.look_ahead:
            between = rb"\1" + MARK + rb"\2"
            text = tf.strings.regex_replace(text, self._settings.look_ahead, between)
        return tf.strings.regex_replace(text, self._settings.words, MARK + rb"\0")

    def _words(self, text: tf.Tensor) -> tf.RaggedTensor:
        return tf.strings.split(self._mark_words(text), MARK)

    def _encode(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize string [words] to int32, ragged [words, tokens]."""
        known, found = self._look_up(words)
        others = tf.boolean_mask(words, ~found)
        latin = tf.strings.unicode_transcode(others, "ISO-8859-1", "UTF-8")
        pieces = tokenize_strings(self._op, latin, LONGEST_WORD)
        single = tf.RaggedTensor.from_uniform_row_length(known, 1, validate=False)
        every = tf.range(tf.size(words))
        after_known = tf.size(words) + tf.cumsum(tf.cast(~found, tf.int32)) - 1
        return tf.gather(tf.concat([single, pieces], 0), tf.where(found, every, after_known))

    def _look_up(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Find the words that are one token: string [n] -> ids, int32 [n], and bool [n].

        By binary search and not in a hash table, which would be state of the graph.
        """
        places = tf.searchsorted(self._hashes, hash_words(words))
        places = tf.minimum(places, len(self._hashes) - 1)
        found = tf.gather(tf.constant(self._whole_words, tf.string), places) == words
        return tf.gather(self._ids, places), found


def prefixed(text: tf.Tensor, prefix: str, blank: str) -> tf.Tensor:
    """Put a blank before each text of string [n] that is not empty.

    Args:
        text: The texts.
        prefix: As `CompiledTokenizer.prefix`.
        blank: Regular expression of what is a blank to "unless-blank".
    """
    if prefix == "none":
        return text
    wanted = tf.strings.length(text) > 0
    if prefix == "unless-blank":
        wanted &= ~tf.strings.regex_full_match(text, f"(?s){blank}.*")
    return tf.where(wanted, tf.strings.join([" ", text]), text)


def _quote(text: str) -> str:
    """Quote a string for RE2, which takes a backslash before ASCII punctuation only."""
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", text)
