"""Flags of the vocabulary's tokens: where words, sentences, lines and paragraphs begin and end."""

import re
from collections.abc import Sequence

import numpy as np

CONTROL = 1
"""A control token: never hidden, never drawn at random."""
STARTS_WORD = 2
STARTS_LINE_FEED = 4
ENDS_WORD = 8
ENDS_SENTENCE = 16
ENDS_LINE = 32
ENDS_PARAGRAPH = 64

_PARTS = re.compile("[\udc80-\udcff]")

# Ranks of a place to cut a document; the end of a paragraph is best.
_PARAGRAPH, _LINE, _SENTENCE, _WORD = 4, 3, 2, 1


def token_flags(token_bytes: Sequence[bytes | None]) -> np.ndarray:
    """Return flags of each token of a vocabulary, uint8 [vocab_size].

    A word starts at a blank, and wherever a character that is no letter or digit stands: as in
    BERT, punctuation is a word of its own.

    Args:
        token_bytes: `Tokenizer.token_bytes`: what each id stands for, None for control tokens.
    """
    flags = np.zeros(len(token_bytes), np.uint8)
    for i, value in enumerate(token_bytes):
        if value is None:
            flags[i] = CONTROL
        elif value:
            # Bytes that are no character are parts of a letter.
            flags[i] = flags_of(_PARTS.sub("x", value.decode("utf-8", "surrogateescape")))
    return flags


def flags_of(text: str) -> int:
    """Return the flags of a token that stands for this text."""
    flags = 0
    if not text[0].isalnum():
        flags |= STARTS_WORD
    if text[0] == "\n":
        flags |= STARTS_LINE_FEED
    if not text[-1].isalnum():
        flags |= ENDS_WORD
    if text.rstrip("\"')]`*_")[-1:] in (".", "!", "?"):
        flags |= ENDS_SENTENCE
    if text[-1] == "\n":
        flags |= ENDS_LINE
        if text.endswith("\n\n"):
            flags |= ENDS_PARAGRAPH
    return flags


def place_ranks(tokens: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Rank how good a place to cut is after each token, uint8, as long as `tokens`; 0 for none.

    Args:
        tokens: Ids, int32 [n].
        flags: What `token_flags` returned.
    """
    mine = flags[tokens]
    following = np.append(mine[1:], np.uint8(STARTS_WORD))
    starts_word = (following & STARTS_WORD) > 0
    ranks = np.where(starts_word, np.uint8(_WORD), np.uint8(0))
    ranks[((mine & ENDS_SENTENCE) > 0) & starts_word] = _SENTENCE
    # Of several line feeds in a row, the place is after the last one.
    last_feed = ((mine & ENDS_LINE) > 0) & ((following & STARTS_LINE_FEED) == 0)
    ranks[last_feed] = _LINE
    alone = mine & (STARTS_LINE_FEED | ENDS_LINE) == (STARTS_LINE_FEED | ENDS_LINE)
    after_feed = np.append(False, (mine[:-1] & ENDS_LINE) > 0)
    ranks[last_feed & (((mine & ENDS_PARAGRAPH) > 0) | (alone & after_feed))] = _PARAGRAPH
    return ranks


def word_starts(tokens: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Mark the tokens that begin a word, bool of the shape of `tokens`; words end with rows."""
    mine = flags[tokens]
    starts = (mine & (STARTS_WORD | CONTROL)) > 0
    starts[..., 0] = True
    starts[..., 1:] |= (mine[..., :-1] & (ENDS_WORD | CONTROL)) > 0
    return starts
