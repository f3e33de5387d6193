"""What records declare: carried through curation, and the rules that go by it."""

import gzip
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.curate.config import CurateConfig
from components.curate.list_entries import ListFiles, parse_entry, pin_lists, read_pinned
from components.curate.lists import LIST_REASONS, LicenseList, UrlList, lists_of, read_lists
from components.curate.losses import check_losses, curation_remarks
from components.curate.word_list import WordList
from tokenmill.errors import TokenmillError
from tokenmill.records.document_metadata import encode_metadata

TEXT = "This is the text of a document, with the words that a text has to have, number {}."


def document(doc_id, split="train", text=None, language=b"", **metadata):
    """A document as ingest leaves it; its text is like no other, unless it is given."""
    text = (text or TEXT.format(doc_id)).encode()
    return split, doc_id.encode(), b"web", text, b"", language, encode_metadata(metadata)


def test_metadata_and_language_travel_with_kept_and_dropped_documents(curate):
    text = TEXT.format("same")
    documents = [
        document("a", title="Über", url="https://e.org/a"),
        document("b", text=text, license="MIT"),
        document("c", text=text.upper(), license="CC0", date="2020"),
        document("d", text="{}", title="A brace", language=b"de"),
        document("e"),
    ]
    result = curate(documents, curate.settings({"max_curly_brackets": 0}))
    kept = {row[1]: row[6:] for row in result.kept}
    assert kept == {
        b"a": (b"en", b'{"title":"\xc3\x9cber","url":"https://e.org/a"}'),
        b"b": (b"en", b'{"license":"MIT"}'),
        b"e": (b"en", b""),
    }
    dropped = {r.doc_id: (r.reason, r.language, r.metadata) for r in result.dropped}
    assert dropped == {
        b"c": ("exact_duplicate", "en", b'{"date":"2020","license":"CC0"}'),
        b"d": ("curly_brackets", "de", b'{"title":"A brace"}'),
    }


# --- through the pipeline ------------------------------------------------------------------------

DOCUMENTS = [
    document("good", url="https://good.org/a", license="CC-BY-4.0"),
    document("sub", "eval", url="http://www.good.org:80/b#part", license="cc-by-sa-3.0"),
    document("bad", url="https://bad.example/x", license="MIT"),
    document("blog", url="https://good.org/blog/1", license="CC-BY-NC-4.0"),
    document("none"),
    document("word", text="Here is a Rude word, and others that a text has."),
]


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({}, {}),
        ({"deny_urls": "bad.example"}, {"bad": ("denied_url", "bad.example")}),
        ({"deny_urls": ["good.org/blog", "BAD.example/"]},
         {"bad": ("denied_url", "bad.example"), "blog": ("denied_url", "good.org/blog")}),
        ({"urls": ["good.org"], "deny_urls": ["good.org/blog"]},
         {"bad": ("url_not_allowed", ""), "none": ("no_url", ""), "word": ("no_url", ""),
          "blog": ("denied_url", "good.org/blog")}),
        ({"licenses": ["CC-BY-?.?", "cc-by-sa*"]},
         {"bad": ("license_not_allowed", ""), "blog": ("license_not_allowed", ""),
          "none": ("no_license", ""), "word": ("no_license", "")}),
        ({"deny_licenses": "*-NC*"}, {"blog": ("denied_license", "*-NC*")}),
        ({"deny_words": ["RUDE word", "else"]}, {"word": ("denied_word", "rude word")}),
    ],
)  # fmt: skip
def test_lists_drop_with_a_reason_and_what_matched(curate, tmp_path, settings, reasons):
    config = CurateConfig(rules="none", **settings)
    files = pin_lists(config.lists, str(tmp_path / "inputs"))
    result = curate(DOCUMENTS, curate.settings(**settings), list_files=files)
    assert {r.doc_id.decode(): (r.reason, r.matched) for r in result.dropped} == reasons
    assert len(result.kept) + len(reasons) == len(DOCUMENTS)
    counted = result.curation.total.dropped
    assert {reason: amount.documents for reason, amount in counted.items()} == {
        reason: sum(r == reason for r, _ in reasons.values()) for reason, _ in reasons.values()
    }


def test_what_lists_drop_stops_no_run_and_is_said(curate, tmp_path):
    documents = [document(f"{i}", url="https://bad.example/") for i in range(20)]
    documents += [document("kept", split="eval")]
    config = CurateConfig(rules="none", deny_urls=("bad.example",))
    files = pin_lists(config.lists, str(tmp_path))
    curation = curate(documents, curate.settings(deny_urls=("bad.example",)), list_files=files)
    check_losses(curation.curation, config, "")
    (remark,) = curation_remarks(curation.curation, config.max_drop_fraction)[:1]
    assert remark.startswith("denied_url drops 95% of all")


def test_lists_come_from_files_and_are_pinned_by_their_content(tmp_path):
    hosts = tmp_path / "hosts.txt"
    hosts.write_bytes(b"\xef\xbb\xbf# bad ones\n\nBad.example\r\nworse.example/x\n")
    values = {"deny_urls": (f"@{hosts}", "more.example"), "urls": ()}
    files = pin_lists(values, str(tmp_path / "run"))
    assert files == ListFiles(deny_urls=files.deny_urls)
    entries = [entry for block in read_pinned(files.deny_urls) for entry in block]
    assert sorted(entries) == ["bad.example", "more.example", "worse.example/x"]
    assert pin_lists(values, str(tmp_path / "run")) == files
    hosts.write_text("bad.example\n")
    assert pin_lists(values, str(tmp_path / "run")) != files  # else the cache would be right
    metadata = [encode_metadata({"url": url}) for url in ("https://worse.example/xy", "a.b")]
    assert read_lists(files).judge(["", ""], metadata) == {0: ("denied_url", "worse.example/x")}


@pytest.mark.parametrize(
    ("key", "content", "said"),
    [
        ("deny_urls", b"a.org\n0.0.0.0 b.org\n", ":2: '0.0.0.0 b.org': expected a host"),
        ("deny_urls", b"||example.org^\n", ":1: '||example.org^': expected a host"),
        ("deny_urls", b"*.ads.*\n", ":1: '*.ads.*': expected a host"),
        ("deny_urls", b"\n# nothing\n", "no entry"),
        ("deny_words", b"", "no entry"),
        ("deny_words", b"w " * 30, ":1: 'w w"),
        ("deny_words", b"a\n\xff\n", ":2: '\ufffd': expected UTF-8"),
        ("licenses", gzip.compress(b"MIT"), "expected UTF-8"),
        ("licenses", b"x" * 1_000_000, "expected an entry of 1 to 2,000 characters"),
        ("urls", None, "cannot be read: No such file"),
    ],
)
def test_a_list_that_is_none_is_said_before_the_run(tmp_path, key, content, said):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    for use in (lambda values: pin_lists(values, str(tmp_path)), lists_of):
        with pytest.raises(TokenmillError, match=re.escape(said)) as caught:
            use({**dict.fromkeys(ListFiles._fields, ()), key: (f"@{path}",)})
        assert f"curate.{key}: {path}" in caught.value.message


@pytest.mark.parametrize(
    ("key", "entry"), [("urls", "a b"), ("urls", "https://"), ("deny_words", " "), ("licenses", "")]
)
def test_an_entry_that_is_none_is_said_with_the_configuration(key, entry):
    with pytest.raises(ValidationError, match="expected a"):
        CurateConfig(**{key: [entry]})


# --- each list by itself -------------------------------------------------------------------------


def url_list(*entries):
    return UrlList([[parse_entry("urls", entry)] for entry in entries])


@pytest.mark.parametrize(
    ("entry", "matching", "others"),
    [
        ("example.org", ["https://example.org", "http://a.b.example.org/x?y", "EXAMPLE.ORG./",
                         "//user:pw@example.org:8080/", "example.org/x"],
         ["https://badexample.org", "https://example.org.evil.com", "https://x.com/example.org",
          "https://x.com/?u=https://example.org/", "mailto:", "", "urn:example.org:x"]),
        ("https://example.org/blog/", ["http://www.example.org/blog/1", "example.org/blog/"],
         ["https://example.org/blog", "https://example.org/x/blog/", "https://example.org"]),
        ("*.co.uk", ["https://a.co.uk", "co.uk"], ["https://co.uk.com"]),
        ("münchen.de/ö", ["https://www.xn--mnchen-3ya.de/ö", "MÜNCHEN.de/öx"], ["münchen.de/x"]),
        ("[::1]", ["http://[::1]:80/x"], ["http://[::2]/"]),
        ("e.org?q=1", ["https://e.org/?q=12"], ["https://e.org/q=1"]),
    ],
)  # fmt: skip
def test_urls_by_host_and_beginning(entry, matching, others):
    found = url_list(entry, "zzz.zz/a/very/long/path").find(matching + others)
    assert found == [parse_entry("urls", entry)] * len(matching) + [""] * len(others)


PARTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(PARTS, st.text("/ab", max_size=5)), max_size=8),
       st.lists(st.tuples(PARTS, st.text("/ab", max_size=8)), max_size=8))  # fmt: skip
def test_urls_as_a_plain_search_finds_them(entries, urls):
    entries = [(".".join(host), path and f"/{path}") for host, path in entries]
    entries = [(host, "" if path == "/" else path) for host, path in entries]
    urls = [(".".join(host), path and f"/{path}") for host, path in urls]
    found = UrlList([[host + path for host, path in entries]]).find(["".join(url) for url in urls])
    for (host, path), entry in zip(urls, found, strict=True):
        path = "" if path == "/" else path
        expected = [
            h + p for h, p in entries if f".{host}".endswith(f".{h}") and path.startswith(p)
        ]
        assert entry == min(expected, key=len, default="") or len(entry) == min(map(len, expected))
        assert not entry or entry in expected


@pytest.mark.parametrize(
    ("license", "patterns"),
    [
        ("CC-BY-4.0", ["CC-BY*", "cc-by-4.0", "*"]),
        ("https://creativecommons.org/licenses/by-sa/3.0/de/", ["CC-BY-SA-3.0", "*by-sa*"]),
        ("http://www.creativecommons.org/publicdomain/zero/1.0/", ["CC0-1.0", "CC0*"]),
        ("Apache License 2.0", ["apache*", "*2.0"]),
    ],
)
def test_licenses_by_pattern(license, patterns):
    for pattern in patterns:
        assert LicenseList([["GPL*", pattern]]).find([license, ""]) == [pattern, ""]
    assert LicenseList([["GPL*", "by", "CC-BY"]]).find([license]) == [""]


def word_list(*words):
    return WordList([[parse_entry("deny_words", word)] for word in words])


@pytest.mark.parametrize(
    ("word", "matching", "others"),
    [
        (
            "bad",
            ["a BAD thing", "bad", "so-bad!", "„bad“", "bad\nx"],
            ["badly", "abad", "b ad", ""],
        ),
        ("two bad words", ["Two\n bad, words"], ["two words", "two bad wordsy", "two bad"]),
        ("don't", ["I don’t", "don't"], ["dont", "I don"]),
        ("c++", ["in C++ it", "c++11"], ["c", "abc++"]),
        ("s&m", ["the S&M one"], ["ships&many"]),
        ("坏", ["这是坏的", "坏"], ["这是好的"]),
        ("acg坏", ["xx acg坏的"], ["xacg坏"]),
        ("ไม่ดี", ["มันไม่ดีเลย"], ["มันดีเลย"]),
        ("나쁜", ["이 나쁜 것"], ["나쁜것"]),
        ("слово", ["Это СЛОВО."], ["словом"]),
        ("é", ["e\u0301 et"], ["e"]),
        ("🖕", ["a🖕b"], ["a"]),
    ],
)
def test_words_are_whole_ones(word, matching, others):
    from tokenmill.text.normalize import normalize

    texts = [normalize(text) for text in matching + others]
    found = word_list(word, "unheard of", "另一个").find(texts)
    assert [bool(entry) for entry in found] == [True] * len(matching) + [False] * len(others)


@given(st.lists(st.text("ab c-坏'", min_size=1, max_size=6), max_size=4),
       st.lists(st.text("ab c-坏'.", max_size=30), max_size=4))  # fmt: skip
def test_words_as_a_plain_search_finds_them(words, texts):
    entries = [" ".join(word.split()) for word in words if word.strip()]

    def pattern(entry):
        runs = re.findall(r"[a-c]+", entry)
        inner = r"[^a-c坏]+" if "坏" not in entry and runs else None
        if inner:
            # What is between two words of a phrase may be anything but a letter.
            return r"(?<![a-c])" + r"[^a-c]+".join(runs) + r"(?![a-c])"
        before = r"(?<![a-c])" if entry[0] in "abc" else ""
        behind = r"(?![a-c])" if entry[-1] in "abc" else ""
        return before + re.escape(entry) + behind

    found = WordList([entries]).find(texts)
    for text, hit in zip(texts, found, strict=True):
        places = [m.start() for entry in entries for m in [re.search(pattern(entry), text)] if m]
        assert bool(hit) == bool(places)
        if hit:
            assert text.find(hit) <= min(places)


def test_time_and_memory_do_not_depend_on_the_number_of_entries():
    hosts = UrlList([[f"host{i}.example"] * 1 for i in range(1)] + [
        [f"host{i}.example" for i in range(start, start + 50_000)]
        for start in range(0, 500_000, 50_000)
    ])  # fmt: skip
    urls = [f"https://www.host{i * 7}.example/path/{i}" for i in range(2_000)]
    begin = time.process_time()
    assert all(hosts.find(urls))
    assert time.process_time() - begin < 2
    words = WordList([[f"word{i}" for i in range(100_000)] + ["坏人", "a+b"]])
    text = "another one of these words aa++bb 好人坏 " * 20_000
    begin = time.process_time()
    assert words.find([text, f"{text} word99999"]) == ["", "word99999"]
    assert time.process_time() - begin < 5


def test_reasons_are_all_explained():
    from pipeline.report.document import _LISTED

    assert tuple(_LISTED) == LIST_REASONS
