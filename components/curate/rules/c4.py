"""Document rules of C4 (Raffel et al. 2020, section 2.2); those for lines are in lines.py."""

import numpy as np

from components.curate.rules.rule import (
    CLOSING_QUOTES,
    SENTENCE_ENDS,
    Rule,
    parts_sentences_by_blanks,
    sets,
)
from tokenmill.text.text_columns import TextColumns

_SOURCE = "Raffel et al. 2020, 2.2"


def _curly_brackets(columns: TextColumns) -> np.ndarray:
    return columns.count(columns.codes == ord("{")).astype(np.float64)


def _sentences(columns: TextColumns) -> np.ndarray:
    """Words that end a sentence: their last character, a closing quote aside, is . ! or ?.

    Also a colon at the end of a line of five words or more, which a list follows.

    NaN for a text in Thai, Lao and the like, which may part sentences by blanks alone, without one.
    """
    words, codes = columns.words, columns.codes
    last = codes[words.end - 1]
    closer = np.isin(last, [ord(c) for c in CLOSING_QUOTES]) & (words.length > 1)
    last = np.where(closer, codes[np.maximum(words.end - 2, 0)], last)
    sentences = words.sum(np.isin(last, [ord(c) for c in SENTENCE_ENDS]))
    lines = columns.lines
    colons = np.isin(codes[lines.end - 1], [ord(c) for c in ":："])
    sentences += lines.sum(colons & (columns.words_of_line >= 5))
    return np.where(parts_sentences_by_blanks(columns), np.nan, sentences)


def _lorem_ipsum(columns: TextColumns) -> np.ndarray:
    """Words "lorem" (in any of three cases) followed by "ipsum"."""
    needles = TextColumns(["lorem ipsum", "Lorem ipsum", "LOREM IPSUM", "Lorem Ipsum"])
    needle_hashes = needles.hash_spans(needles.words)
    lorem, ipsum = needle_hashes[0::2], needle_hashes[1::2]
    words = columns.words
    hashes = columns.word_hashes
    pairs = np.zeros(len(hashes), bool)
    if len(hashes) > 1:
        pairs[:-1] = np.isin(hashes[:-1], lorem) & np.isin(hashes[1:], ipsum)
        pairs[:-1] &= words.document[:-1] == words.document[1:]
    return words.sum(pairs)


RULES = (
    Rule("few_sentences", "min_sentences", _sentences, "below", _SOURCE, sets(3, 1, c4=3)),
    Rule("curly_brackets", "max_curly_brackets", _curly_brackets, "above", _SOURCE, sets(0, c4=0)),
    Rule("lorem_ipsum", "max_lorem_ipsum", _lorem_ipsum, "above", _SOURCE, sets(0, 0, 0, c4=0)),
)
