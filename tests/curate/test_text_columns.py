"""Characters, words, lines and hashes of a batch, against plain Python on each text."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.text_columns import DIGIT, LETTER, TextColumns, ngrams

# Rich in line ends, odd blanks, characters outside the BMP, and repeated words.
TEXT = st.lists(
    st.sampled_from(["a", "bb", "é", "漢", "𝒳", "7", "²", ".", " ", "\t", "\n", "\x85", "\u2028"])
    | st.text(max_size=3),
    max_size=25,
).map("".join)
TEXTS = st.lists(TEXT, max_size=6)


def slices(columns, spans, texts):
    """The text of each span, by document."""
    found = [[] for _ in texts]
    for start, end, document in zip(spans.start, spans.end, spans.document, strict=True):
        first = columns.first[document]
        found[document].append(texts[document][start - first : end - first])
    return found


def naive_lines(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


@given(TEXTS)
def test_words_are_those_of_split(texts):
    columns = TextColumns(texts)
    assert slices(columns, columns.words, texts) == [t.split() for t in texts]
    assert columns.words.count.tolist() == [len(t.split()) for t in texts]
    assert columns.words.first.tolist()[-1] == len(columns.words.start)


@given(TEXTS)
def test_lines_are_stripped_and_never_empty(texts):
    columns = TextColumns(texts)
    assert slices(columns, columns.lines, texts) == [naive_lines(t) for t in texts]
    assert columns.lines.count.tolist() == [len(naive_lines(t)) for t in texts]


@given(TEXTS)
def test_counts_of_characters(texts):
    columns = TextColumns(texts)
    assert columns.characters.tolist() == [len(t) for t in texts]
    assert columns.solid_characters.tolist() == [len("".join(t.split())) for t in texts]
    letters = columns.count((columns.classes & LETTER) > 0)
    assert letters.tolist() == [sum(map(str.isalpha, t)) for t in texts]
    digits = columns.count((columns.classes & DIGIT) > 0)
    assert digits.tolist() == [sum(map(str.isdigit, t)) for t in texts]


@given(TEXTS)
def test_runs_stop_at_the_end_of_a_document(texts):
    columns = TextColumns(texts)
    runs = columns.runs(columns.codes == ord("a"))
    assert slices(columns, runs, texts) == [
        ["a" * len(part) for part in "".join(c if c == "a" else " " for c in t).split()]
        for t in texts
    ]


@given(TEXTS, st.data())
def test_sums_go_to_their_document(texts, data):
    columns = TextColumns(texts)
    values = data.draw(
        st.lists(
            st.integers(0, 9),
            min_size=len(columns.words.start),
            max_size=len(columns.words.start),
        )
    )
    rest = iter(values)
    expected = [sum(next(rest) for _ in t.split()) for t in texts]
    assert columns.words.sum(np.array(values, np.float64)).tolist() == expected


@given(TEXTS)
def test_spans_hash_alike_just_if_their_text_is_alike(texts):
    columns = TextColumns(texts)
    for spans in (columns.words, columns.lines):
        by_text, by_hash = {}, {}
        words = [w for found in slices(columns, spans, texts) for w in found]
        for word, value in zip(words, columns.hash_spans(spans).tolist(), strict=True):
            assert by_text.setdefault(word, value) == value
            assert by_hash.setdefault(value, word) == word


@given(TEXT.filter(str.split), TEXTS, st.text(max_size=5))
def test_a_hash_does_not_depend_on_where_the_text_stands(text, before, prefix):
    word = text.split()[0]
    alone = TextColumns([word]).word_hashes[0]
    columns = TextColumns([*before, f"{prefix} {word} x"])
    place = columns.words.first[len(before)] + len(prefix.split())
    assert columns.word_hashes[place] == alone


def test_far_down_a_long_batch_hashes_are_still_the_same():
    texts = ["filler words and more " * 20_000, "the word"]
    columns = TextColumns(texts)
    assert columns.word_hashes[-1] == TextColumns(["word"]).word_hashes[0]


def test_a_hundred_thousand_words_do_not_collide():
    words = [f"w{i}" for i in range(100_000)]
    assert len(np.unique(TextColumns([" ".join(words)]).word_hashes)) == len(words)
    assert len(np.unique(TextColumns(["ab ba aab aba baa bb aa"]).word_hashes)) == 7


@given(TEXTS, st.integers(1, 4))
def test_ngrams_stay_within_documents_and_hash_by_their_words(texts, n):
    columns = TextColumns(texts)
    hashes, first = ngrams(columns.word_hashes, columns.words, n)
    expected = [
        (i, tuple(t.split()[j : j + n]))
        for i, t in enumerate(texts)
        for j in range(len(t.split()) - n + 1)
    ]
    assert columns.words.document[first].tolist() == [i for i, _ in expected]
    by_words = {}
    for (_, words), value in zip(expected, hashes.tolist(), strict=True):
        assert by_words.setdefault(words, value) == value
    assert len(set(by_words.values())) == len(by_words)


def test_order_of_words_tells_ngrams_apart():
    columns = TextColumns(["a b a", "a a b"])
    hashes, _ = ngrams(columns.word_hashes, columns.words, 2)
    assert sorted(Counter(hashes.tolist()).values()) == [1, 1, 2]  # ba, aa; ab twice


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], [" \n\t "], ["\n\n", ""]])
def test_batches_without_a_word(texts):
    columns = TextColumns(texts)
    assert columns.words.count.tolist() == [0] * len(texts)
    assert columns.lines.count.tolist() == [0] * len(texts)
    assert columns.word_hashes.tolist() == []
    hashes, first = ngrams(columns.word_hashes, columns.words, 3)
    assert len(hashes) == len(first) == 0


def test_an_empty_document_between_others_takes_nothing_from_them():
    columns = TextColumns(["a b\nc", "", "d", " \n", "e\n\nf"])
    assert columns.words.count.tolist() == [3, 0, 1, 0, 2]
    assert columns.lines.count.tolist() == [2, 0, 1, 0, 2]
    assert columns.lines.document.tolist() == [0, 0, 2, 4, 4]
