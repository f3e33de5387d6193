"""Characters, words, lines and hashes of a batch, against plain Python on each text."""

import importlib.util
import pathlib
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.text.text_columns import DIGIT, LETTER, TextColumns, ngrams

# A module beside this one; pytest's importlib mode puts no directory on the path.
_SPEC = importlib.util.spec_from_file_location(
    "naive_rules", pathlib.Path(__file__).with_name("naive_rules.py")
)
naive_rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(naive_rules)
split_words, word_places = naive_rules.split_words, naive_rules.word_places

# Rich in line ends, odd blanks, characters outside the BMP, and repeated words.
TEXT = st.lists(
    st.sampled_from(["a", "bb", "é", "漢", "𝒳", "7", "²", ".", " ", "\t", "\n", "\x85", "\u2028"])
    | st.text(max_size=3),
    max_size=25,
).map("".join)
WORDS = st.lists(st.sampled_from("ไทยประกขabc本好、。(-7 "), max_size=30).map("".join)
TEXTS = st.lists(TEXT | WORDS, max_size=6)


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
    assert slices(columns, columns.words, texts) == [split_words(t) for t in texts]
    assert columns.words.count.tolist() == [len(split_words(t)) for t in texts]
    assert columns.words.first.tolist()[-1] == len(columns.words.start)


@given(st.lists(st.sampled_from("aไทยประ本好、 "), max_size=900), st.integers(200, 300))
def test_long_words_are_cut_where_copies_are_looked_for(characters, size):
    texts = ["".join(characters), "".join(characters[:size]).replace(" ", ""), "0a1b" * size]
    words = TextColumns(texts, cut_long_words=True)
    assert [
        [(a - words.first[d], b - words.first[d]) for a, b, i in
         zip(words.words.start, words.words.end, words.words.document, strict=True) if i == d]
        for d in range(3)
    ] == [word_places(t, cut_long_words=True) for t in texts]  # fmt: skip


@given(st.lists(st.text("的一是不了在人有我他 ab。を本", max_size=40), min_size=1, max_size=4))
def test_joined_characters_as_plain_python_has_them(texts):
    columns = TextColumns(texts, cut_long_words=True, east_asian="words")
    found = zip(columns.words.document, columns.words.start, columns.words.end, strict=True)
    by_text = [[] for _ in texts]
    for document, start, end in found:
        first = columns.first[document]
        by_text[document].append((start - first, end - first))
    assert by_text == [word_places(text, True, join_characters=True) for text in texts]


@given(st.lists(st.text("東ラめ ab。", max_size=20), min_size=1, max_size=3))
def test_characters_of_their_own_where_copies_are_looked_for(texts):
    columns = TextColumns(texts, east_asian="characters")
    expected = [
        [word for run in text.split() for word in re.findall("[a-b]+。*|[東ラめ]。*|。+", run)]
        for text in texts
    ]
    assert ["".join(found) for found in slices(columns, columns.words, texts)] == [
        "".join(found) for found in expected
    ]
    assert columns.words.count.tolist() == [len(found) for found in expected]


def test_joined_characters_make_words_of_the_length_of_words():
    text = "".join(chr(0x4E00 + (i * i * 7919) % 3000) for i in range(20_000))
    words = TextColumns([text], east_asian="words").words
    assert len(words.start) == pytest.approx(20_000 / 1.5, rel=0.03)


@pytest.mark.parametrize(
    ("text", "words", "bare"),
    [
        (
            "文本，而TensorFlow的“好”。",
            "文 本， 而 TensorFlow 的“ 好”。",
            "文 本 而 TensorFlow 的 好",
        ),
        ("カナ（ABC）、Foo", "カナ（ ABC）、 Foo", "カナ ABC Foo"),
        (
            "東京でラーメンを食べたー。",
            "東 京 で ラーメン を 食 べたー。",
            "東 京 で ラーメン を 食 べたー",
        ),
        ("(ไทย) -- x_y!", "(ไทย) -- x_y!", "ไทย x_y"),
        ("한국어 문장. שלום, العربية؟", "한국어 문장. שלום, العربية؟", "한국어 문장 שלום العربية"),
    ],
)
def test_words_of_scripts_without_blanks(text, words, bare):
    columns = TextColumns([text])
    joined = ["".join(found) for found in slices(columns, columns.words, [text])[0]]
    assert " ".join(joined).replace("( ไทย", "(ไทย") == words
    assert " ".join(slices(columns, columns.bare_words, [text])[0]) == bare


def test_pieces_are_the_same_wherever_the_text_stands_and_of_four_characters_on_average():
    thai = "ประเทศไทยเป็นประเทศในทวีปเอเชียตะวันออกเฉียงใต้มีเมืองหลวงชื่อกรุงเทพมหานคร"
    pieces = split_words(thai)
    assert split_words(f"คำนำหน้า{thai}")[-len(pieces) + 2 :] == pieces[2:]
    assert 3 < len(thai) / len(pieces) < 6


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
    expected = [sum(next(rest) for _ in split_words(t)) for t in texts]
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


@given(TEXT.filter(str.split), TEXTS, st.text("ab \n本。", max_size=5))
def test_a_hash_does_not_depend_on_where_the_text_stands(text, before, prefix):
    word = text.split()[0]
    alone = TextColumns([word]).word_hashes[0]
    columns = TextColumns([*before, f"{prefix} {word} x"])
    place = columns.words.first[len(before)] + len(split_words(f"{prefix} "))
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
        (i, tuple(split_words(t)[j : j + n]))
        for i, t in enumerate(texts)
        for j in range(len(split_words(t)) - n + 1)
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
