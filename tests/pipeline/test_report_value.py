"""The screen and the page of `tokenmill value`, and what a run shows of it."""

import io
import re

import pytest
from rich.console import Console

from pipeline.report.measured import difference_words, multiplier_words
from pipeline.report.page.value import render_value_page
from pipeline.report.value import value_screen
from tests.studies.made_value import BETTER, RATIO, made_value, mixture, source, variant
from tokenmill.contracts.value import Multiplier, read_value, write_value
from tokenmill.errors import TokenmillError


def screen_of(value):
    stream = io.StringIO()
    Console(file=stream, width=100, highlight=False).print(value_screen(value))
    return stream.getvalue()


def two(**others):
    better = variant("base", "f", 2.06, BETTER, "better", RATIO)
    return made_value([variant("raw [1]", "r"), better], **others)


def ratio(value, low, high):
    return Multiplier(value=value, low=low, high=high, least=0.25, most=2.0)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (RATIO, "x1.31 [1.18, 1.45]"),
        (ratio(1.8, 1.2, None), "x1.80 [1.20, >2.00]"),
        (ratio(0.3, None, 0.6), "x0.30 [<0.25, 0.60]"),
        (ratio(None, 2.0, None), "over x2.00"),
        (ratio(None, None, 0.25), "under x0.25"),
        # The interval reaches back to what says nothing: no word without it.
        (ratio(None, 0.8, None), "over x2.00 [0.80, >2.00]"),
        (ratio(None, None, 1.9), "under x0.25 [<0.25, 1.90]"),
        (ratio(None, None, None), "cannot be told"),
        (None, "no number"),
    ],
)
def test_a_ratio_in_words(found, words):
    assert multiplier_words(found) == words


OPEN = ratio(0.64, None, 1.94)


def test_an_interval_that_is_open_is_shown_whole():
    open_ended = variant("base", "f", 2.06, BETTER, "undecided", OPEN)
    assert multiplier_words(OPEN) in screen_of(made_value([variant("raw", "r"), open_ended]))
    sources = {"docs": source(0.6, "undecided", OPEN)}
    assert multiplier_words(OPEN) in screen_of(two(sources=sources))


def test_a_difference_in_words():
    assert difference_words(BETTER) == "-0.043 [-0.055, -0.031]"
    assert difference_words(None) == "no number"


def test_the_screen_shows_verdict_ratio_sets_and_price():
    text = " ".join(screen_of(two()).split())
    assert "raw [1]" in text
    assert "-0.043 [-0.055, -0.031]" in text
    assert "better" in text
    assert "x1.31 [1.18, 1.45]" in text
    assert "code [x]" in text
    assert "$0.0155" in text
    assert "planned looks after 3, 5, 8; all verdicts were clear" in text
    assert "Less than 0.011 bits per byte counts as equal" in text


def test_words_stand_where_there_is_no_number():
    value = made_value(
        [
            variant("base", "f"),
            variant("a", "a", difference=BETTER, verdict="better", note="no curve"),
            variant("b", "b", difference=BETTER, verdict="undecided", note="no curve"),
        ],
        curve=None,
        stopped="budget",
    )
    text = " ".join(screen_of(value).split())
    assert "no number" in text
    assert "What a token is worth (a, b): no curve." in text
    assert "1 undecided: a longer budget" in text
    assert "no curve lies through its points" in render_value_page(value)


def test_any_study_fits_a_screen():
    many = [variant("base", "f")] + [
        variant(f"v{i}", str(i), difference=BETTER, verdict="better", multiplier=RATIO)
        for i in range(20)
    ]
    sources = {f"a source with a name as long as {i}": source(0.05) for i in range(20)}
    sources["small"] = source(0.0001, verdict=None)
    studies = [two(), made_value(many), made_value(many[:10], sources=sources),
               two(mixture=mixture())]  # fmt: skip
    for value in studies:
        lines = screen_of(value).splitlines()
        # Steps and seeds take 14 more.
        assert len(lines) <= 31, "\n".join(lines)
        assert max(map(len, lines)) <= 100


def test_the_mixture_is_shown_as_the_key_takes_it():
    text = " ".join(screen_of(two(mixture=mixture())).split())
    assert (
        'pack.source_weights = { "docs" = 0.5, "code [x]" = 0.3, "a" = 0.12, "b" = 0.08 }' in text
    )
    assert "Predicted -0.030, found -0.043 [-0.055, -0.031]" in text
    assert "other sources 10.0% 20.0% x2.00" in text
    worse = mixture().model_copy(update={"verdict": "worse"})
    assert "pack.source_weights" not in screen_of(two(mixture=worse))


def test_the_page_has_all_of_it():
    sources = {"<b>docs": source(0.6), "news": source(0.4, verdict=None)}
    page = render_value_page(two(sources=sources, mixture=mixture()))
    for words in ("x1.31 [1.18, 1.45]", "What each source is worth", "&lt;b&gt;docs", "raw [1]",
                  "Mixture of the sources", "its curve", "not measured"):  # fmt: skip
        assert words in page
    assert "<b>docs" not in page
    assert render_value_page(two(mixture=mixture())) == render_value_page(two(mixture=mixture()))


def test_the_document_is_read_back(tmp_path):
    path = str(tmp_path / "value.json")
    value = two(mixture=mixture(), sources={"a": source(0.5)})
    write_value(path, value)
    assert read_value(path) == value


@pytest.mark.parametrize("damage", ["another version", "NaN", "broken off"])
def test_a_document_that_is_not_of_this_version_is_refused(tmp_path, damage):
    path = tmp_path / "value.json"
    write_value(str(path), two())
    text = path.read_text()
    damaged = {
        "another version": text.replace("tokenmill-value-1", "tokenmill-value-9"),
        "NaN": text.replace("0.0155", "NaN"),
        "broken off": text[:-100],
    }[damage]
    assert damaged != text
    path.write_text(damaged)
    with pytest.raises(TokenmillError, match=re.escape(str(path))):
        read_value(str(path))
