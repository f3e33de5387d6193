"""Raw text to token ids, inside the TensorFlow graph.

The same graph is applied to the training data and, in the pushed model, to a request's text.
"""

import functools
import re
from collections.abc import Callable

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

# A longer word is tokenized part by part: the op takes some 80 bytes of memory for each byte, and
# BPE's time grows faster than the text.
PART_BYTES = 65_536
MARK = b"\xff"
"""Marks where words begin; no UTF-8 text holds this byte."""
Encode = Callable[[tf.Tensor], tf.RaggedTensor]
"""From string [words] to int32, ragged [words, tokens]."""
# Texts that tell what a model's normalizer does to blanks: before, between and after words, beside
# characters that become blanks or nothing, in scripts with and without them.
_SAMPLES = (
    "Two words.", " one before", "one after ", "  two  between  and around  ", " ", "   ",
    "\ta\t b", "def f(x):\n    return  x\n\n", "a\u00a0 \u00a0b \u3000c",
    "a \u200b b \ufeff c \x01 d", "a \u0301 \u00a8 b", "\u2581a \u2581 b", "😀 👍🏽  x",
    "Größe – «élan» № 5", "Привет, мир  и все", "مرحبا  بالعالم", "שלום  עולם", "नमस्ते  दुनिया",
    "训练 一个  语言模型。", "日本語 の テキスト", "안녕하세요  세계", "สวัสดี ชาวโลก",
)  # fmt: skip


def load_tokenizer(path: str) -> tf_text.SentencepieceTokenizer:
    """Load the tf.text tokenizer of a SentencePiece model file.

    The op takes the model as bytes when the graph is built, so the model is part of the graph.
    It, not the sentencepiece library, is what counts tokens everywhere: for the unigram model
    the two break ties between equal splits differently.
    """
    with tf.io.gfile.GFile(path, "rb") as source:
        return tf_text.SentencepieceTokenizer(model=source.read(), out_type=tf.int32)


@functools.lru_cache(maxsize=4)
def may_cut(model: bytes, blanks_for_2581: bool = False) -> bool:
    """Tell whether a model gives a text the tokens of its words, each with the blanks before it.

    So it is with the models that tokenmill trains. It is not where the model begins each text with
    a blank of its own and keeps the others (Llama), or removes blanks that begin a text, or has
    tokens that go on over a blank.

    Args:
        model: A SentencePiece model file's content.
        blanks_for_2581: Whether texts are given with blanks for U+2581. That is another text but
            to models to which both are the same, so others are not to be cut.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    over_blank = re.compile("[^\u2581]\u2581")
    for i in range(processor.get_piece_size()):
        if not processor.is_control(i) and over_blank.search(processor.id_to_piece(i)):
            return False
    normalize = processor.normalize
    before_blanks = re.compile("(?<! )(?= )")
    if blanks_for_2581 and normalize("\u2581") != "\u2581":
        return False
    for sample in _SAMPLES:
        text = sample.replace("\u2581", " ") if blanks_for_2581 else sample
        parts = [normalize(part) for part in before_blanks.split(text)]
        # A part that ends in a blank (a line feed that became one) would join the next one's.
        if any(part.endswith("\u2581") for part in parts[:-1]) or normalize(text) != "".join(parts):
            return False
    return True


def tokenize(
    tokenizer: tf_text.SentencepieceTokenizer,
    text: tf.Tensor,
    cut: bool = True,
    part_bytes: int = PART_BYTES,
) -> tf.RaggedTensor:
    """Tokenize texts as Transform and the pushed model do, whatever the texts' length.

    With `cut` a text is cut before each run of blanks, and each different word of the batch is
    tokenized once: two to three times as fast for BPE. No token of a trained vocabulary goes on
    over such a place, so the ids are those of the whole text, but for ties of the unigram model,
    which then do not depend on what stands before. A word (or run of blanks), or without `cut` a
    text, above `part_bytes` is cut between two characters.

    Args:
        tokenizer: From `load_tokenizer`.
        text: String, [batch], UTF-8. Bytes that are not UTF-8 become U+FFFD.
        cut: Of `may_cut`.
        part_bytes: Longest word that is tokenized at once.

    Returns:
        int32, ragged [batch, tokens].
    """
    text = repair_utf8(text)  # else it might hold MARK
    words = _words(text) if cut else _wholes(text)
    return tokenize_unique(words, lambda unique: tokenize_strings(tokenizer, unique, part_bytes))


def repair_utf8(text: tf.Tensor) -> tf.Tensor:
    """Replace what is not UTF-8 by U+FFFD: string [n] -> string [n]."""
    valid = tf.strings.regex_full_match(text, "(?s).*")
    return tf.cond(
        tf.reduce_all(valid),
        lambda: text,
        lambda: tf.where(valid, text, tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")),
    )


def tokenize_unique(words: tf.RaggedTensor, encode: Encode) -> tf.RaggedTensor:
    """Tokenize each different word once.

    Args:
        words: String, ragged [batch, words].
        encode: From string [words] to int32, ragged [words, tokens].

    Returns:
        int32, ragged [batch, tokens].
    """
    unique, places = tf.unique(words.flat_values)
    ids = tf.gather(encode(unique), places)
    return tf.RaggedTensor.from_row_splits(
        ids.flat_values, tf.gather(ids.row_splits, words.row_splits), validate=False
    )


def tokenize_strings(
    tokenizer: tf_text.SentencepieceTokenizer, words: tf.Tensor, part_bytes: int = PART_BYTES
) -> tf.RaggedTensor:
    """Tokenize string [words] to int32, ragged [words, tokens].

    A word above `part_bytes` is cut between two characters.
    """
    longest = tf.reduce_max(tf.concat([[0], tf.strings.length(words)], 0))
    return tf.cond(
        longest <= part_bytes,
        lambda: tokenizer.tokenize(words),
        lambda: _tokenize_by_parts(tokenizer, words, part_bytes),
    )


def _words(text: tf.Tensor) -> tf.RaggedTensor:
    """Cut string [batch] into ragged [batch, words]; each but the first begins with its blanks."""
    return tf.strings.split(tf.strings.regex_replace(text, " +", MARK + b"\\0"), MARK)


def _wholes(text: tf.Tensor) -> tf.RaggedTensor:
    """Give string [batch] as ragged [batch, 1]."""
    return tf.RaggedTensor.from_uniform_row_length(text, 1, validate=False)


def _tokenize_by_parts(
    tokenizer: tf_text.SentencepieceTokenizer, words: tf.Tensor, part_bytes: int
) -> tf.RaggedTensor:
    """Tokenize string [words], some of them long, to int32, ragged [words, tokens]."""
    is_long = tf.strings.length(words) > part_bytes
    long_words = tf.boolean_mask(words, is_long)
    lengths, count = tf.strings.length(long_words), tf.size(long_words)

    def next_part(row, start, number, parts, owners):
        # long_words[row] would copy all of a long word each time.
        here = tf.cast(tf.range(count) == row, tf.int32)
        window = tf.strings.reduce_join(
            tf.strings.substr(long_words, here * start, here * (part_bytes + 1))
        )
        at_end = lengths[row] - start <= part_bytes
        part = tf.cond(at_end, lambda: window, lambda: _whole_characters(window, part_bytes))
        return (
            tf.where(at_end, row + 1, row),
            tf.where(at_end, 0, start + tf.strings.length(part)),
            number + 1,
            parts.write(number, part),
            owners.write(number, row),
        )

    _, _, _, parts, owners = tf.while_loop(
        lambda row, *_: row < count,
        next_part,
        (
            tf.constant(0),
            tf.constant(0),
            tf.constant(0),
            tf.TensorArray(tf.string, 0, dynamic_size=True, element_shape=[]),
            tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[]),
        ),
        parallel_iterations=1,
    )
    of_parts = tokenizer.tokenize(parts.stack())
    of_long = tf.RaggedTensor.from_row_lengths(
        of_parts.flat_values,
        tf.math.segment_sum(of_parts.row_lengths(), owners.stack()),
        validate=False,  # an assertion would make TFX read the data to analyse it
    )
    of_short = tokenizer.tokenize(tf.where(is_long, "", words))
    every = tf.range(tf.size(words))
    after_short = tf.size(words) + tf.cumsum(tf.cast(is_long, tf.int32)) - 1
    return tf.gather(tf.concat([of_short, of_long], 0), tf.where(is_long, after_short, every))


def _whole_characters(window: tf.Tensor, part_bytes: int) -> tf.Tensor:
    """Cut a string scalar of part_bytes + 1 bytes to part_bytes or less, at a character's end."""
    values = tf.io.decode_raw(window, tf.uint8)[1:]
    starts = tf.where((values & 0xC0) != 0x80)[:, 0]  # 0b10xxxxxx goes on with a character
    cut = 1 + tf.reduce_max(tf.cast(tf.concat([[-1], starts], 0), tf.int32))
    return tf.strings.substr(window, 0, tf.where(cut > 0, cut, part_bytes))
