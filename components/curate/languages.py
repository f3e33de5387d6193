"""The language of each document of a batch, and the stop words that it has of it.

English is told by Gopher's eight stop words (Rae et al. 2021, A1.1); only documents with few of
them are given to fastText, which takes some 70 microseconds each, a third of all else that curation
does. The stop words of other languages are those of Stopwords ISO (the package stopwordsiso, MIT).
"""

import functools

import numpy as np
import stopwordsiso

from components.curate.text_columns import PIECES, WORD, TextColumns, character_classes
from tokenmill.text.language import MIN_LANGUAGE_SCORE, determined, identify

ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# A text with so many different ones of them is English, and fastText is not asked.
_ENGLISH_AT_LEAST = 3


def identified(columns: TextColumns) -> list[tuple[str, float]]:
    """Return (ISO 639 code, score from 0 to 1) of each document."""
    if columns.identified is None:
        answers = [("en", 1.0)] * columns.documents
        others = np.flatnonzero(english_stop_words(columns) < _ENGLISH_AT_LEAST).tolist()
        found = identify([columns.texts[i] for i in others])
        for place, answer in zip(others, found, strict=True):
            answers[place] = answer
        columns.identified = answers
    return columns.identified


def languages(columns: TextColumns) -> list[str]:
    """Return the code of each document's language; UNDETERMINED where the score is low."""
    return determined(identified(columns))


def english_stop_words(columns: TextColumns) -> np.ndarray:
    """Count the different English stop words of each document, float64 [documents]."""
    if columns.english_stop_words is None:
        every = np.ones(columns.documents, bool)
        columns.english_stop_words = _count_different(columns, "en", every)
    return columns.english_stop_words.copy()


def stop_words(columns: TextColumns) -> np.ndarray:
    """Count the different stop words of each document, in lower or title case.

    Those of its language or of English, whichever are more. NaN for a document in a language
    without a list, and for one of which a quarter or more is in scripts without blanks.
    """
    counts = english_stop_words(columns)
    by_code: dict[str, list[int]] = {}
    for place, (code, score) in enumerate(identified(columns)):
        if code != "en":
            if len(_hashes(code)[0]):
                by_code.setdefault(code, []).append(place)
            elif score >= MIN_LANGUAGE_SCORE:
                counts[place] = np.nan
    for code, places in by_code.items():
        mine = np.zeros(columns.documents, bool)
        mine[places] = True
        counts = np.maximum(counts, _count_different(columns, code, mine))
    without_blanks = columns.count((columns.classes & (WORD | PIECES)) > 0)
    return np.where(
        (without_blanks > 0) & (without_blanks * 4 >= columns.solid_characters), np.nan, counts
    )


def _count_different(columns: TextColumns, code: str, documents: np.ndarray) -> np.ndarray:
    """Count the different stop words of a language in some documents (bool), 0 in others."""
    forms, kinds = _hashes(code)
    words = columns.words
    mine = np.flatnonzero(documents[words.document]) if not documents.all() else slice(None)
    hashes, document = columns.word_hashes[mine], words.document[mine]
    place = np.minimum(np.searchsorted(forms, hashes), len(forms) - 1)
    found = forms[place] == hashes
    count = int(kinds.max()) + 1
    different = np.unique(document[found] * count + kinds[place[found]])
    return np.bincount(different // count, minlength=columns.documents).astype(np.float64)


@functools.cache
def _hashes(code: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all forms, uint64, ascending, and which word each is a form of, int64.

    Without phrases, punctuation and single Latin letters; nothing for scripts without blanks,
    where a word cannot be told.
    """
    listed = ENGLISH_STOP_WORDS if code == "en" else sorted(stopwordsiso.stopwords(code))
    classes = character_classes()
    words = [
        word
        for word in listed
        if not any(classes[ord(c)] & (WORD | PIECES) for c in word)
        and word.isprintable()
        and len(word.split()) == 1
        and any(map(str.isalpha, word))
        and (len(word) > 1 or not word.isascii())
    ]
    needles = TextColumns([form for word in words for form in (word, word.title())])
    hashes, first = np.unique(needles.hash_spans(needles.words), return_index=True)
    return hashes, first // 2
