"""A batch of texts as NumPy columns: characters, words and lines of all documents at once.

Every quality measure is then a few array operations over the batch instead of a Python loop over
characters. Hashes of words, lines and n-grams come from one prefix sum over the characters.

A word is a run of characters without a blank. Scripts that are written without blanks are cut:

- A Chinese character, a bopomofo letter or a Yi syllable is a word of its own (a Chinese word has
  some 1.5 of them), and so is a run of hiragana or of katakana: a Japanese word, and the particles
  behind it, change the script. (Other ways: see TextColumns.)
- Thai, Lao, Tibetan, Burmese, Khmer and their kin are cut into pieces of four characters on average
  (a Thai word has four to five). Where a piece ends goes by the three characters at its end, so
  that the same text has the same pieces wherever it stands.
- CJK punctuation belongs to the word before it.
"""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Classes of characters, as bits. MARK: combining ones, which are no letters by themselves, but of
# which half the text of many scripts is; WORD, PIECES, CLOSES: see above.
LETTER, DIGIT, BLANK, LINE_FEED, MARK, WORD, PIECES, CLOSES = 1, 2, 4, 8, 16, 32, 64, 128

# First and last code points.
WORD_CHARACTERS = (
    (0x3005, 0x3007), (0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF),
    (0x3105, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA48C), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x323AF),
)  # fmt: skip
PIECE_CHARACTERS = (
    (0x0E01, 0x0E3A), (0x0E40, 0x0E5B), (0x0E81, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F),
    (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F), (0xA980, 0xA9DF),
    (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F),
)  # fmt: skip
HIRAGANA = ((0x3041, 0x3096), (0x309D, 0x309F))
KATAKANA = ((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
LONG_VOWEL = 0x30FC
HANGUL = (0xAC00, 0xD7A3)
CLOSING_CHARACTERS = (
    (0x3001, 0x3004), (0x3008, 0x303F), (0x30FB, 0x30FB), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40), (0xFF5B, 0xFF65),
)  # fmt: skip
FIRST_HAN = 0x3400  # of the characters that are words; what is before are kana and bopomofo
# One in so many pairs of Chinese characters is joined, where words of 1.5 are wanted.
JOINED = 3
# One in so many places ends a piece.
MEAN_PIECE = 4
# Longer words, such as hexadecimal text, are cut into pieces, too, where copies are looked for.
LONGWORD_CHARACTERS = 256

_UNICODE = 0x110000
# An odd multiplier is invertible modulo 2^64, which lets a span's hash be taken out of a prefix
# sum (this is the 64-bit FNV prime; any odd number with mixed bits would do).
_BASE = np.uint64(0x100000001B3)
_BASE_INVERSE = np.uint64(pow(0x100000001B3, -1, 2**64))
_BASE_SQUARED = np.uint64(pow(0x100000001B3, 2, 2**64))


@functools.cache
def character_classes() -> np.ndarray:
    """uint8 [0x110000]: the class bits of each code point, as Python's str methods see them."""
    classes = np.zeros(_UNICODE, np.uint8)
    for code in range(_UNICODE):
        character = chr(code)
        if character.isalpha():
            classes[code] = LETTER
        elif character.isdigit():
            classes[code] = DIGIT
        elif character.isspace():
            classes[code] = BLANK
        elif unicodedata.category(character)[0] == "M":
            classes[code] = MARK
    classes[ord("\n")] |= LINE_FEED
    for bit, ranges in (
        (WORD, WORD_CHARACTERS), (PIECES, PIECE_CHARACTERS), (CLOSES, CLOSING_CHARACTERS)
    ):  # fmt: skip
        for first, last in ranges:
            classes[first : last + 1] |= bit
    return classes


@dataclass(frozen=True)
class Spans:
    """Words or lines of a batch, in order: characters [start, end) and the document they are of.

    Attributes:
        start: int64 [spans].
        end: int64 [spans].
        document: int64 [spans], not decreasing.
        first: int64 [documents + 1]; document i has the spans first[i] .. first[i + 1] - 1.
    """

    start: np.ndarray
    end: np.ndarray
    document: np.ndarray
    first: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """Spans of each document, int64 [documents]."""
        return np.diff(self.first)

    @property
    def length(self) -> np.ndarray:
        """Characters of each span, int64 [spans]."""
        return self.end - self.start

    def take(self, keep: np.ndarray) -> "Spans":
        """Return the spans where `keep` (bool [spans]) holds."""
        document = self.document[keep]
        counts = np.bincount(document, minlength=len(self.first) - 1)
        return Spans(self.start[keep], self.end[keep], document, _offsets(counts))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum per-span values by document, float64 [documents]."""
        return np.bincount(self.document, weights=values, minlength=len(self.first) - 1)


class TextColumns:
    """The columns of a batch.

    Args:
        texts: The documents.
        cut_long_words: Whether words of more than LONGWORD_CHARACTERS are cut into pieces.
        east_asian: What is a word of Chinese and Japanese text: each of the "characters", where
            copies are looked for (a changed one changes few n-grams); or "runs" of kana and single
            Chinese characters; or "words", for which one in JOINED pairs of Chinese characters is
            joined, chosen by the pair: on average they are as long as words are.
    """

    def __init__(
        self,
        texts: Sequence[str],
        cut_long_words: bool = False,
        east_asian: Literal["characters", "runs", "words"] = "runs",
    ):
        self.texts, self.documents = texts, len(texts)
        self._cut_long_words, self._east_asian = cut_long_words, east_asian
        self.codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        self.first = _offsets(np.array([len(t) for t in texts], np.int64))
        # By n, filled in by the repetition rules, which build each n on the one below.
        self.repeated_ngrams: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        # What languages.py found, once it was asked for: language and score of each document, and
        # the occurrences of English stop words: document and which word.
        self.identified: list[tuple[str, float]] | None = None
        self.english_stop_words: tuple[np.ndarray, np.ndarray] | None = None

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """Class bits of each character, uint8 [characters]."""
        return character_classes()[self.codes]

    @property
    def characters(self) -> np.ndarray:
        """Characters of each document, int64 [documents]."""
        return np.diff(self.first)

    def count(self, flags: np.ndarray) -> np.ndarray:
        """Count the flags (bool [characters]) that are set in each document, int64 [documents]."""
        counts = np.zeros(self.documents, np.int64)
        full = self.characters > 0  # reduceat gives an empty run its neighbor's value
        if full.any():
            counts[full] = np.add.reduceat(flags, self.first[:-1][full], dtype=np.int64)
        return counts

    @functools.cached_property
    def words(self) -> Spans:
        """Maximal runs of characters that are not blank, cut where a script has no blanks."""
        solid = (self.classes & BLANK) == 0
        pieces = (self.classes & PIECES) > 0
        words = self._runs(solid, self._cuts(pieces))
        long_words = np.flatnonzero(words.length > LONGWORD_CHARACTERS)
        if self._cut_long_words and len(long_words):
            edges = np.zeros(len(solid) + 1, np.int8)
            edges[words.start[long_words]] = 1
            edges[words.end[long_words]] -= 1
            pieces |= np.cumsum(edges[:-1], dtype=np.int8) > 0
            words = self._runs(solid, self._cuts(pieces))
        return words

    @functools.cached_property
    def bare_words(self) -> Spans:
        """The words without the punctuation around them; what is nothing else is left out."""
        places = np.flatnonzero(self.classes & (LETTER | DIGIT | MARK | WORD | PIECES))
        words = self.words
        low = np.searchsorted(places, words.start)
        high = np.searchsorted(places, words.end)
        kept = words.take(full := low < high)
        return Spans(places[low[full]], places[high[full] - 1] + 1, kept.document, kept.first)

    def _cuts(self, pieces: np.ndarray) -> np.ndarray | None:
        """Tell which characters begin a word though no blank is before them.

        Args:
            pieces: bool [characters], those that are cut into pieces.

        Returns:
            bool [characters]; None if there is nothing to cut.
        """
        whole = ((self.classes & WORD) > 0) & ~pieces
        has_pieces = pieces.any()
        if not has_pieces and not (self.classes & (WORD | CLOSES)).any():
            return None
        cuts = whole.copy()
        starts_word = (self.classes & (LETTER | DIGIT)) > 0
        after_whole = whole | ((self.classes & CLOSES) > 0)
        cuts[1:] |= starts_word[1:] & after_whole[:-1]
        if self._east_asian != "characters":
            cuts[1:] &= ~self._goes_on_in_kana()
        if self._east_asian == "words":
            is_han = whole & (self.codes >= FIRST_HAN)
            pairs = self.codes[:-1].astype(np.uint64) * _BASE + self.codes[1:]
            cuts[1:] &= ~(is_han[1:] & is_han[:-1] & (mix(pairs) % np.uint64(JOINED) == 0))
        if has_pieces:
            cuts[1:] |= (pieces[1:] != pieces[:-1]) & (pieces | starts_word)[1:]
            window = mix(self.codes.astype(np.uint64))
            window[2:] += window[1:-1] * _BASE + window[:-2] * _BASE_SQUARED
            ends = pieces & (mix(window) % np.uint64(MEAN_PIECE) == 0)
            # The three characters have to be of one run of one document.
            ends[2:] &= pieces[1:-1] & pieces[:-2]
            for place in (self.first[:-1], self.first[:-1] + 1):
                ends[place[place < len(ends)]] = False
            cuts[1:] |= ends[:-1] & pieces[1:]
        return cuts

    def _goes_on_in_kana(self) -> np.ndarray:
        """Tell which characters go on in the kana before them, bool [characters - 1]: no first."""
        kana = np.zeros(len(self.codes), np.uint8)
        for kind, ranges in enumerate((HIRAGANA, KATAKANA), start=1):
            for first, last in ranges:
                kana[(self.codes >= first) & (self.codes <= last)] = kind
        before, here = kana[:-1], kana[1:]
        return (here > 0) & ((here == before) | ((self.codes[1:] == LONG_VOWEL) & (before > 0)))

    @property
    def lines(self) -> Spans:
        """Lines without surrounding blanks; empty ones are left out."""
        return self._lines_and_words[0]

    @property
    def first_word_of_line(self) -> np.ndarray:
        """Place in `words` of the first word of each line, int64 [lines]."""
        return self._lines_and_words[1]

    @property
    def words_of_line(self) -> np.ndarray:
        """Words of each line, int64 [lines]."""
        return self._lines_and_words[2]

    @functools.cached_property
    def _lines_and_words(self) -> tuple[Spans, np.ndarray, np.ndarray]:
        runs = self.runs((self.classes & LINE_FEED) == 0)
        words = self.words
        # A line's text runs from its first word to its last; a line without a word is blank.
        first = np.searchsorted(words.start, runs.start, side="left")
        count = np.searchsorted(words.start, runs.end, side="left") - first
        full = count > 0
        lines = runs.take(full)
        first, count = first[full], count[full]
        start, end = words.start[first], words.end[first + count - 1]
        return Spans(start, end, lines.document, lines.first), first, count

    @functools.cached_property
    def paragraphs(self) -> Spans:
        """Runs of lines between empty lines."""
        lines = self.lines
        feeds = np.concatenate(([0], np.cumsum(self.codes == ord("\n"), dtype=np.int64)))
        # A line goes on the paragraph of the line before it if one line feed lies between them.
        begins = np.ones(len(lines.start), bool)
        between = feeds[lines.start[1:]] - feeds[lines.end[:-1]]
        begins[1:] = (between != 1) | (lines.document[1:] != lines.document[:-1])
        first_lines = np.flatnonzero(begins)
        last_lines = np.append(first_lines[1:], len(lines.start))[: len(first_lines)] - 1
        document = lines.document[first_lines]
        counts = np.bincount(document, minlength=self.documents)
        return Spans(lines.start[first_lines], lines.end[last_lines], document, _offsets(counts))

    @functools.cached_property
    def word_hashes(self) -> np.ndarray:
        """Hash of each word, uint64 [words]."""
        return self.hash_spans(self.words)

    @functools.cached_property
    def solid_characters(self) -> np.ndarray:
        """Characters of each document that are not blank, float64 [documents]."""
        return self.words.sum(self.words.length)

    def runs(self, inside: np.ndarray) -> Spans:
        """Find maximal runs of `inside` (bool [characters]) that do not cross documents."""
        return self._runs(inside, None)

    def _runs(self, inside: np.ndarray, cuts: np.ndarray | None) -> Spans:
        """Find the runs of `inside`, which `cuts` end, too (both bool [characters])."""
        begins, ends = inside.copy(), inside.copy()
        begins[1:] &= ~inside[:-1]
        ends[:-1] &= ~inside[1:]
        if cuts is not None:
            begins[1:] |= inside[1:] & cuts[1:]
            ends[:-1] |= inside[:-1] & cuts[1:]
        edges = self.first[1:-1]
        edges = edges[(edges > 0) & (edges < len(inside))]
        begins[edges] = inside[edges]
        ends[edges - 1] = inside[edges - 1]
        start = np.flatnonzero(begins)
        first = np.searchsorted(start, self.first)
        document = np.repeat(np.arange(self.documents), np.diff(first))
        return Spans(start, np.flatnonzero(ends) + 1, document, first)

    @functools.cached_property
    def _prefix(self) -> np.ndarray:
        """uint64 [characters + 1]: sums of the characters times powers of the base."""
        powers, _ = _powers(len(self.codes))
        prefix = np.zeros(len(self.codes) + 1, np.uint64)
        np.cumsum((self.codes + np.uint64(1)) * powers[: len(self.codes)], out=prefix[1:])
        return prefix

    def hash_spans(self, spans: Spans) -> np.ndarray:
        """Hash spans, uint64 [spans]; those of equal text have equal hashes."""
        _, inverse = _powers(len(self.codes))
        return mix((self._prefix[spans.end] - self._prefix[spans.start]) * inverse[spans.start])


def word_counts(texts: Sequence[str]) -> np.ndarray:
    """Count the words of each text, int64 [texts]; see above for what a word is."""
    return TextColumns(texts).words.count


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at least `count + 1` powers of the base and of its inverse, kept for later batches."""
    return _powers_up_to(1 << max(16, count.bit_length()))


@functools.lru_cache(maxsize=4)
def _powers_up_to(size: int) -> tuple[np.ndarray, np.ndarray]:
    tables = []
    for base in (_BASE, _BASE_INVERSE):
        table = np.full(size, base, np.uint64)
        table[0] = 1
        tables.append(np.multiply.accumulate(table))
    return tables[0], tables[1]


def mix(values: np.ndarray) -> np.ndarray:
    """Spread the bits of uint64 values (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = values.astype(np.uint64, copy=True)
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def ngrams(hashes: np.ndarray, spans: Spans, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash all runs of n consecutive spans of a document.

    Args:
        hashes: uint64 [spans], of each span.
        spans: The spans.
        n: At least 1.

    Returns:
        uint64 [n-grams] hashes, and int64 [n-grams] the index of each one's first span.
    """
    index = np.arange(len(hashes) - n + 1) if len(hashes) >= n else np.zeros(0, np.int64)
    index = index[spans.document[index] == spans.document[index + n - 1]]
    combined = hashes[index].copy()
    for i in range(1, n):
        combined = mix(combined * _BASE + hashes[index + i])
    return combined, index


def is_in(hashes: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Tell which numbers are among the others, which are ascending, bool [hashes]."""
    if not len(ascending):
        return np.zeros(len(hashes), bool)
    place = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
    return ascending[place] == hashes


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
