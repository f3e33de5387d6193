"""WordPiece (BERT, MiniLM; cased and uncased) in TensorFlow's graph.

tf.text's own BERT tokenizer lower-cases by another rule and bounds words by bytes. Here a table,
made from the tokenizer itself (importing/word_piece.py), says what each
character becomes: other characters, nothing, a blank, or itself between two blanks (punctuation,
Chinese). As it looks at one character alone, each different word of a batch is rewritten once.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_text as tf_text

from tokenmill.text.tokenization import repair_utf8, tokenize_unique
from tokenmill.text.tokenizers.base import Tokenizer, join_tokens, token_strings
from tokenmill.text.tokenizers.compiled import CompiledFile

PAGES, ENTRIES, OUTPUTS, OUTPUT_ENDS, VOCABULARY = (
    "pages.npy", "entries.npy", "outputs.npy", "output_ends.npy", "vocabulary.txt",
)  # fmt: skip
"""Parts of the file. Character c becomes outputs[output_ends[e] : output_ends[e + 1]], where e is
entries[256 * pages[c >> 8] + (c & 255)]; entry 0, without outputs, leaves it as it is."""
PAGE_BITS = 8
PAGE = 1 << PAGE_BITS
_BLANKS = "[ \t\n\r]+"
_UTF8_BYTES = 4  # of a character, at most


class WordPiece(Tokenizer):
    """A WordPiece tokenizer.

    Args:
        file: A compiled tokenizer of this kind.
    """

    def __init__(self, file: CompiledFile):
        settings = file.description
        assert settings.longest_word
        assert settings.unk_text
        assert settings.continuation
        self.vocab_size = settings.vocab_size
        self.control_ids = settings.control_ids
        self.token_bytes = file.token_bytes
        self._longest_word = settings.longest_word
        self._pages, self._entries = file.array(PAGES), file.array(ENTRIES)
        self._outputs, self._ends = file.array(OUTPUTS), file.array(OUTPUT_ENDS)
        self._op = tf_text.FastWordpieceTokenizer(
            vocab=file.parts[VOCABULARY].decode().split("\n"),
            suffix_indicator=settings.continuation,
            max_bytes_per_word=_UTF8_BYTES * settings.longest_word,
            token_out_type=tf.int32,
            unknown_token=settings.unk_text,
            no_pretokenization=True,
        )

    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize texts: string [batch] -> int32, ragged [batch, tokens]."""
        spaced = tf.strings.regex_replace(repair_utf8(text), _BLANKS, " ")
        return tokenize_unique(tf.strings.split(spaced, " "), self._encode)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Turn ids into text: int32, ragged [batch, tokens] -> string [batch].

        Words are joined by single blanks, none before punctuation; what normalization took is gone.
        """
        joined = join_tokens(token_strings(self.token_bytes), ids)
        return tf.strings.regex_replace(joined, "^ ", "")

    def _encode(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize string [words] to int32, ragged [words, tokens]."""
        return tokenize_unique(tf.strings.split(self._rewritten(words), " "), self._pieces)

    def _rewritten(self, words: tf.Tensor) -> tf.Tensor:
        """Replace each character by what the table says: string [n] -> string [n]."""
        codes = tf.strings.unicode_decode(words, "UTF-8")
        flat = codes.flat_values
        page = tf.gather(self._pages, tf.bitwise.right_shift(flat, PAGE_BITS))
        place = page * PAGE + tf.bitwise.bitwise_and(flat, PAGE - 1)
        entry = tf.gather(self._entries, place)
        table = tf.RaggedTensor.from_row_splits(self._outputs, self._ends, validate=False)
        kept = tf.RaggedTensor.from_uniform_row_length(flat, 1, validate=False)
        # What stays comes first, then the table.
        every = tf.range(tf.size(flat))
        source = tf.where(entry == 0, every, tf.size(flat) + entry)
        rewritten = tf.gather(tf.concat([kept, table], 0), source)
        of_words = tf.RaggedTensor.from_row_splits(
            rewritten.flat_values, tf.gather(rewritten.row_splits, codes.row_splits), validate=False
        )
        return tf.strings.unicode_encode(of_words, "UTF-8")

    def _pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize string [words] without blanks; a word that is too long is unknown."""
        characters = tf.strings.length(words, unit="UTF8_CHAR")
        too_long = characters > self._longest_word
        pieces = self._op.tokenize(tf.where(too_long, "", words))
        pieces = pieces.with_row_splits_dtype(tf.int64)
        unknown = tf.fill([tf.size(words)], self.control_ids.need("unk"))
        single = tf.RaggedTensor.from_uniform_row_length(unknown, 1, validate=False)
        every = tf.range(tf.size(words))
        return tf.gather(
            tf.concat([pieces, single], 0), tf.where(too_long, tf.size(words) + every, every)
        )
