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


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # Next to the end of a sentence, and to scripts without blanks.
        ("Connect to 192.168.0.1.", "Connect to <IP>."),
        ("地址192.168.0.1是", "地址<IP>是"),
        ("10.0.0.1-10.0.0.5,10.0.0.1:80", "<IP>-<IP>,<IP>:80"),
        ("联系邮箱foo@example.com，谢谢", "联系邮箱<EMAIL>，谢谢"),
        ("mail:foo@example.com谢谢", "mail:<EMAIL>谢谢"),
        ("foo@example.com으로 보내세요", "<EMAIL>으로 보내세요"),
        ("मीरा@example.com, רָחֵל@example.com", "<EMAIL>, <EMAIL>"),  # vowel signs and points
        ("meera@उदाहरण.भारत।", "<EMAIL>।"),
        ("อีเมลfoo@example.comครับ", "อีเมล<EMAIL>ครับ"),
        ("请访问https://example.com。后文还有内容", "请访问<URL>。后文还有内容"),
        ("请访问https://example.com后文", "请访问<URL>后文"),
        ("بريد foo@example.com، و https://x.org، ثم", "بريد <EMAIL>، و <URL>، ثم"),
        ("See http://x.org/a, http://y.org.", "See <URL>, <URL>."),
        ("“https://x.org/a?b=c#d”", "“<URL>”"),
        # Letters beyond ASCII in them.
        ("Jörg.Müller@example.com", "<EMAIL>"),
        ("почта: иван@пример.рф!", "почта: <EMAIL>!"),
        ("用户@例子.公司", "<EMAIL>"),
        ("user@xn--bcher-kva.xn--p1ai", "<EMAIL>"),
        ("https://de.wikipedia.org/wiki/Köln", "<URL>"),
        ("https://例え.jp/abc说", "<URL>说"),
        # IPv6, and what only looks like it.
        ("fe80::1, 2001:db8::1. IP:2001:db8::1:", "<IP>, <IP>. IP:<IP>:"),
        ("::ffff:192.168.0.1 http://[::1]:80/x", "<IP> <URL>"),
        ("a::b std::vector<int> 12:34:56 00:1a:2b:3c:4d:5e ::", None),
        # Four numbers are an address, as in Dolma and FineWeb; not with a letter before.
        ("v1.2.3.4 1.2.3 1.2.3.4.5 256.1.1.1 1.2.3.4rc1", None),
        ("x@a.b.c1 me@localhost @b.com http://. http://", None),
    ],
)
def test_where_an_address_begins_and_ends(text, masked):
    assert mask(text, KINDS)[0] == (text if masked is None else masked)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Call +49 30 1234567, or 0049-30-1234567!", "Call <PHONE>, or <PHONE>!"),
        ("电话+86 10 6552 9988转", "电话<PHONE>转"),
        ("هاتف: +20 2 27921555.", "هاتف: <PHONE>."),
        ("тел. +7 (495) 739-70-70;", "тел. <PHONE>;"),
        ("+1 415-555-2671 +1 415-555-2672", "<PHONE> <PHONE>"),
        ("+1 415-555-2671 12", "<PHONE> 12"),
        ("(415) 555-2671, 030 901820", "(415) 555-2671, 030 901820"),  # of which country?
        ("2026-11-29 12:30:45, 1,234,567.89 ISBN 978-3-16-148410-0", None),
        ("+49 30 1234567+49 30 1234567", "<PHONE><PHONE>"),
        ("001 415-555-2671-001 415-555-2672,001 415-555-2673", "<PHONE>-<PHONE>,<PHONE>"),
        ("4111111111111111,378282246310005 0.4111111111111111", "<CARD>,<CARD> 0.4111111111111111"),
        ("DE89 3704 0044 0532 0130 00, GB82WEST12345698765432.", "<IBAN>, <IBAN>."),
        ("口座FR1420041010050500013M02606です", "口座<IBAN>です"),
        ("DE89 3704 0044 0532 0130 01 AB12CDEFGHIJKLMNO", None),  # wrong check digits
        ("4111 1111 1111 1111, 378282246310005 5555-5555-5555-4444", "<CARD>, <CARD> <CARD>"),
        ("4111 1111 1111 1112 1234567890123456 4444 4444 4444 4444", None),
        ("карта4111111111111111", "карта<CARD>"),
        ("key=AKIAIOSFODNN7EXAMPLE;", "key=<KEY>;"),
        ("token ghp_" + "a1" * 18 + "。", "token <KEY>。"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "<KEY>"),
        ("sk-learn, sk-short, AKIA, ghp_x, eyJ.eyJ.x", None),
    ],
)
def test_what_is_an_account_a_number_or_a_key(text, masked):
    assert mask(text, KINDS)[0] == (text if masked is None else masked)


def test_a_url_that_holds_an_address_is_one_url():
    assert mask("http://a@b.org/1.2.3.4 c@d.org", KINDS) == (
        "<URL> <EMAIL>",
        {"url": 1, "email": 1},
    )


HOSTILE = st.lists(
    st.one_of(
        st.sampled_from(
            ["http://", "a", "@", ".", ":", "::", "1", "1.2.3.4", "f", "中", "。", "-", "xn--", "é",
             "[", "]", "co", "<", ">", " ", "+49 30 1234567", "4111 1111 1111 1111", "+", "00",
             "DE89 3704 0044 0532 0130 00", "AKIAIOSFODNN7EXAMPLE", "415-555-2671", " 12"]
        ),
        st.characters(codec="utf-8"),
    ),
    max_size=20,
).map("".join)  # fmt: skip


@given(HOSTILE, st.sets(st.sampled_from(KINDS)))
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
