"""Normalization changes how a text is written, not what it says."""

import itertools
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.records.keys import content_key
from tokenmill.text.normalize import normalize

# Text rich in what normalization is about.
TRICKY = st.lists(
    st.one_of(
        st.sampled_from(
            ["\r", "\n", "\r\n", "\t", " ", "\x00", "\x0c", "\x1b", "\x85", "\x9f", "\x7f", "\xa0"]
        ),
        st.sampled_from(["e", "\u0301", "\u0323", "ẹ́", "\u1100", "\u1161", "\u212b", "\ufeff"]),
        st.text(max_size=3),
    ),
    max_size=30,
).map("".join)


@given(TRICKY)
def test_normalizing_twice_changes_nothing_more(text):
    once = normalize(text)
    assert normalize(once) == once


@given(TRICKY)
def test_result_is_clean(text):
    clean = normalize(text)
    assert unicodedata.is_normalized("NFC", clean)
    assert not [c for c in clean if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert "\n\n\n" not in clean
    assert not clean.startswith("\n")
    assert all(line == line.rstrip(" \t") for line in clean.split("\n"))
    clean.encode()


@given(TRICKY)
def test_only_blanks_and_control_characters_are_lost(text):
    def solid(value):
        kept = [c for c in value if unicodedata.category(c) != "Cc" and c != " "]
        return unicodedata.normalize("NFC", "".join(kept))

    assert solid(normalize(text)) == solid(text)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("", ""),
        ("def f():\n    if x:\n\treturn 1", "def f():\n    if x:\n\treturn 1"),
        ("    indented first line\n", "    indented first line"),
        ("a  b\tc", "a  b\tc"),
        ("a   b\t\t\tc", "a  b  c"),  # layout inside a line
        ("      a\n\t\t\tb", "      a\n\t\t\tb"),  # indentation is none
        ("a \t\nb  ", "a\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n\nb\n\n\n\nc", "a\n\nb\n\nc"),
        ("a\n \n\t\n \nb", "a\n\nb"),
        ("\n\n a\n\n", " a"),
        ("e\u0301", "é"),
        ("\u212b", "Å"),
        ("ﬁ ²", "ﬁ ²"),  # NFC, not NFKC
        ("a\x00b\x1b[0m\x0c", "ab[0m"),
        ("a\x0cb\x0bc\x85d", "a\nb\nc\nd"),
        ("e\x00\u0301", "é"),
        (" \u3000\xa0", " \u3000\xa0"),
    ],
)
def test_examples(raw, clean):
    assert normalize(raw) == clean


def test_long_run_of_blanks_takes_no_long_time():
    blanks = " " * 100_000
    started = time.process_time()
    assert normalize(f"{blanks}a{blanks}b{blanks}") == f"{blanks}a  b"
    assert time.process_time() - started < 5


@given(st.text(st.characters(codec="ascii")), st.sampled_from([" ", "\n", "\t  \r\n", "\x0c"]))
def test_content_key_ignores_blanks_and_case(text, blank):
    assert content_key(text.encode()) == content_key(
        (blank + text.replace(" ", blank).swapcase() + blank).encode()
    )


@given(st.text(), st.text())
def test_content_key_tells_other_texts_apart(a, b):
    def words(text):
        return text.encode().lower().split()  # bytes: blanks and case of ASCII

    assert (content_key(a.encode()) == content_key(b.encode())) == (words(a) == words(b))


def test_content_key_keeps_word_boundaries():
    assert content_key(b"now here") != content_key(b"nowhere")


@given(
    st.lists(
        st.tuples(
            # Marks up to U+FFFF and above, letters that they join, an emoji.
            st.sampled_from(
                ["\u0323", "\u0301", "\u3099", "\U0001d165", "\U00011099", "e", "か", "😀"]
            ),
            st.integers(1, 40),
        ),
        max_size=8,
    ).map(lambda runs: "".join(character * count for character, count in runs))
)
def test_only_runs_of_more_than_30_marks_are_not_composed(text):
    parts, composed = [], ""
    for is_mark, run in itertools.groupby(text, lambda c: unicodedata.combining(c) > 0):
        characters = "".join(run)
        if is_mark and len(characters) > 30:
            parts += [unicodedata.normalize("NFC", composed), characters]
            composed = ""
        else:
            composed += characters
    assert normalize(text) == "".join([*parts, unicodedata.normalize("NFC", composed)])
