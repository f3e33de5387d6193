"""The language of each document of a batch, and the stop words that it has of it.

English is told by Gopher's eight stop words (Rae et al. 2021, A1.1); only documents with few of
them are given to fastText, which takes some 70 microseconds each, a third of all else that curation
does. The stop words of other languages are FineWeb-2's.
"""

import functools

import numpy as np

from components.curate import fineweb2
from tokenmill.text.language import MIN_LANGUAGE_SCORE, identify
from tokenmill.text.text_columns import HANGUL, PIECES, WORD, TextColumns, character_classes

ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# A text with so many different ones of them, which are so large a share of its words, is English,
# and fastText is not asked. In English they are some 15 %, in German text that quotes it few.
_ENGLISH_AT_LEAST = 3
_ENGLISH_SHARE = 0.05


def identified(columns: TextColumns) -> list[tuple[str, float]]:
    """Return (ISO 639 code, score from 0 to 1) of each document."""
    if columns.identified is None:
        columns.identified = [("en", 1.0)] * columns.documents
        others = np.flatnonzero(~_is_english(columns)).tolist()
        answers = identify([columns.texts[i] for i in others])
        for place, answer in zip(others, answers, strict=True):
            columns.identified[place] = answer
    return columns.identified


def stop_words(columns: TextColumns) -> np.ndarray:
    """Count the different stop words of each document, in lower or title case.

    Those of its language or of English, whichever are more; in scripts without blanks wherever
    their characters stand. NaN for a document in a language without a list, and for one of which a
    quarter or more is in scripts without blanks, but in no language for certain.
    """
    counts = _different(columns, *_found_english(columns))
    without_blanks = columns.count((columns.classes & (WORD | PIECES)) > 0)
    has_no_words = (without_blanks > 0) & (without_blanks * 4 >= columns.solid_characters)
    by_code: dict[str, list[int]] = {}
    for place, (code, score) in enumerate(identified(columns)):
        is_sure = score >= MIN_LANGUAGE_SCORE
        if has_no_words[place] and not (is_sure and _parts_of_words(code)):
            counts[place] = np.nan
        elif code != "en":
            if len(_hashes(code)[0]) or _parts_of_words(code):
                by_code.setdefault(code, []).append(place)
            elif is_sure:
                counts[place] = np.nan
    for code, places in by_code.items():
        mine = np.zeros(columns.documents, bool)
        mine[places] = True
        of_code = _different(columns, *_found(columns, code, mine))
        for place in places:
            text = columns.texts[place]
            of_code[place] += sum(word in text for word in _parts_of_words(code))
        counts = np.maximum(counts, of_code)
    return counts


def _is_english(columns: TextColumns) -> np.ndarray:
    """Tell which documents are English for certain, bool [documents]."""
    document, kind = _found_english(columns)
    occurrences = np.bincount(document, minlength=columns.documents)
    return (_different(columns, document, kind) >= _ENGLISH_AT_LEAST) & (
        occurrences >= _ENGLISH_SHARE * columns.words.count
    )


def _found_english(columns: TextColumns) -> tuple[np.ndarray, np.ndarray]:
    """Find the stop words of English, once a batch: the language and the rule both need them."""
    if columns.english_stop_words is None:
        columns.english_stop_words = _found(columns, "en")
    return columns.english_stop_words


def _found(
    columns: TextColumns, code: str, documents: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the stop words of a language.

    Args:
        columns: The texts.
        code: The language.
        documents: Where to look, bool [documents]; None: in all.

    Returns:
        Of each occurrence the document and which word it is, both int64 [occurrences].
    """
    forms, kinds = _hashes(code)
    words = columns.words
    mine = slice(None) if documents is None else np.flatnonzero(documents[words.document])
    hashes, document = columns.word_hashes[mine], words.document[mine]
    if not len(forms):
        return document[:0], kinds
    place = np.minimum(np.searchsorted(forms, hashes), len(forms) - 1)
    found = forms[place] == hashes
    return document[found], kinds[place[found]]


def _different(columns: TextColumns, document: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Count the different words that were found in each document, float64 [documents]."""
    kinds = int(kind.max(initial=0)) + 1
    different = np.unique(document * kinds + kind)
    return np.bincount(different // kinds, minlength=columns.documents).astype(np.float64)


@functools.cache
def _hashes(code: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all forms, uint64, ascending, and which word each is a form of, int64.

    Nothing for scripts without blanks, where a word cannot be told.
    """
    words = [word for word in _listed(code) if not _stands_in_words(word)]
    needles = TextColumns([form for word in words for form in (word, word.title())])
    hashes, first = np.unique(needles.hash_spans(needles.words), return_index=True)
    return hashes, first // 2


@functools.cache
def _parts_of_words(code: str) -> tuple[str, ...]:
    """Return the stop words of a language that are joined to others: no blank is around them."""
    return tuple(filter(_stands_in_words, _listed(code)))


def _listed(code: str) -> list[str]:
    """List the stop words of a language, without phrases, punctuation and single Latin letters."""
    listed = ENGLISH_STOP_WORDS if code == "en" else fineweb2.stop_words_of(code)
    return [
        word
        for word in listed
        if word.isprintable()
        and len(word.split()) == 1
        and any(map(str.isalpha, word))
        and (len(word) > 1 or not word.isascii())
    ]


def _stands_in_words(word: str) -> bool:
    """Tell whether a word is in a script without blanks, or Korean: its particles are suffixes."""
    classes = character_classes()
    return any(classes[ord(c)] & (WORD | PIECES) or HANGUL[0] <= ord(c) <= HANGUL[1] for c in word)
