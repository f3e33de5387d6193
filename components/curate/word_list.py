"""Words and phrases of a list, found in texts: whole words, or anywhere in scripts without blanks.

A word is a run of letters, marks and digits; what is between the words of a phrase does not count,
nor does case. An entry with a character of a script without blanks (Chinese, Thai), or with another
sign than those between words (c++), is looked for as it stands; where it begins or ends with a
letter of a script with blanks, no such letter stands beside it. All is found by hashes: the time is
linear in the text, whatever the number of entries.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tokenmill.text.text_columns import (
    DIGIT,
    LETTER,
    MARK,
    PIECES,
    WORD,
    Spans,
    TextColumns,
    is_in,
    ngrams,
)

_BETWEEN = np.array([ord(character) for character in " -'\u2019"], np.uint32)


class WordList:
    """Finds the entries of a list.

    Args:
        blocks: The entries in lower case, in parts.
    """

    def __init__(self, blocks: Iterable[list[str]]):
        phrases, substrings, firsts = [], [], []
        counts: set[int] = set()
        lengths: set[int] = set()
        for entries in blocks:
            columns = TextColumns(entries)
            words = _words(columns)
            others = ~(_is_spaced(columns) | np.isin(columns.codes, _BETWEEN))
            as_it_stands = (columns.count(others) > 0) | (words.count == 0)
            hashes = columns.hash_spans(words)
            for count in np.unique(words.count[~as_it_stands]).tolist():
                found, first = ngrams(hashes, words, count)
                is_whole = ((words.count == count) & ~as_it_stands)[words.document[first]]
                phrases.append(found[is_whole])
                counts.add(count)
            start, end = columns.first[:-1][as_it_stands], columns.first[1:][as_it_stands]
            substrings.append(columns.hash_spans(_spans(start, end)))
            firsts.append(columns.codes[start])
            lengths.update((end - start).tolist())
        self._phrases = _distinct(phrases)
        self._substrings = _distinct(substrings)
        self._first_codes = np.unique(np.concatenate([np.zeros(0, np.uint32), *firsts]))
        self._counts, self._lengths = sorted(counts), sorted(lengths)

    def find(self, texts: Sequence[str]) -> list[str]:
        """Return what each text has first of the list, in lower case; empty for nothing."""
        lowered = [text.lower() for text in texts]
        columns = TextColumns(lowered)
        starts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        words = _words(columns)
        hashes = columns.hash_spans(words)
        for count in self._counts:
            found, first = ngrams(hashes, words, count)
            first = first[is_in(found, self._phrases)]
            starts.append(words.start[first])
            ends.append(words.end[first + count - 1])
        if self._lengths:
            begins = np.flatnonzero(is_in(columns.codes, self._first_codes))
            # Places between two letters of a word, of which an entry can be no part.
            spaced = _is_spaced(columns)
            joined = np.zeros(len(spaced) + 1, bool)
            joined[1:-1] = spaced[:-1] & spaced[1:]
            joined[columns.first] = False
            left = columns.first[_document_of(columns, begins) + 1] - begins
            for length in self._lengths:
                start = begins[left >= length]
                hit = is_in(columns.hash_spans(_spans(start, start + length)), self._substrings)
                start = start[hit]
                whole = ~(joined[start] | joined[start + length])
                starts.append(start[whole])
                ends.append(start[whole] + length)
        start, end = np.concatenate(starts), np.concatenate(ends)
        order = np.lexsort((end, start))
        documents, place = np.unique(_document_of(columns, start[order]), return_index=True)
        result = [""] * len(texts)
        for document, hit in zip(documents.tolist(), order[place].tolist(), strict=True):
            begin = int(columns.first[document])
            result[document] = lowered[document][start[hit] - begin : end[hit] - begin]
        return result


def _words(columns: TextColumns) -> Spans:
    return columns.runs(_is_spaced(columns))


def _is_spaced(columns: TextColumns) -> np.ndarray:
    """Tell which characters are of words between blanks, bool [characters]."""
    kind = columns.classes & (LETTER | DIGIT | MARK | WORD | PIECES)
    return (kind > 0) & (kind & (WORD | PIECES) == 0)


def _spans(start: np.ndarray, end: np.ndarray) -> Spans:
    none = np.zeros(0, np.int64)  # hashing asks for the ends alone
    return Spans(start, end, none, none)


def _document_of(columns: TextColumns, places: np.ndarray) -> np.ndarray:
    """Return the document that each character is of, int64 [places]."""
    return np.searchsorted(columns.first, places, side="right") - 1


def _distinct(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))
