"""The Curate transform: every document ends once, and nothing depends on order or batching.

A pipeline takes one or two seconds, so examples are few and wide.
"""

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.curate.config import CurateConfig
from tokenmill.records.keys import content_key
from tokenmill.records.splits import SPLITS
from tokenmill.text.normalize import normalize

few_pipelines = settings(
    max_examples=5,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # no shrinking
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Few ids, sources and texts, so that copies, also of ids, are common; each in several spellings.
TEXTS = st.builds(
    lambda words, blank, end, upper: (
        (blank.join(words) + end).upper() if upper else blank.join(words) + end
    ),
    st.lists(st.sampled_from(["one", "é", "e\u0301", "\x00", "{"]), max_size=3),
    st.sampled_from([" ", "\n", "\r\n"]),
    st.sampled_from(["", " \n"]),
    st.booleans(),
)
DOCUMENT = st.tuples(
    st.sampled_from(SPLITS),
    st.sampled_from([b"id1", b"id2"]),
    st.sampled_from([b"web", "wörterbuch".encode()]),
    TEXTS.map(str.encode),
)
DOCUMENTS = st.lists(DOCUMENT, max_size=5) | st.lists(DOCUMENT, min_size=40, max_size=60)


def words(rng, count):
    return [f"{rng.choice('bdfgklmnprst')}{rng.choice('aeiou')}{rng.randrange(3000)}"
            for _ in range(count)]  # fmt: skip


def everything(seed=7, count=240):
    """Documents that meet every reason to be dropped, over both splits and three sources."""
    rng = random.Random(seed)
    documents = []

    def add(text, split=None, doc_id=None):
        split = split or ("eval" if rng.random() < 0.3 else "train")
        doc_id = doc_id or f"d{len(documents):04d}"
        source = rng.choice(["web", "books", "übrig"]).encode()
        documents.append((split, doc_id.encode(), source, text.encode()))

    texts = [" ".join(words(rng, 60)) for _ in range(count)]
    for i, text in enumerate(texts):
        add(text + "  \r\n\r\n\r\n")
        if i % 8 == 0:  # exact copies, in other splits and spellings
            add(text.upper())
            add(text.replace(" ", "\n", 3), "train")
        if i % 8 == 1:  # near copies in a chain
            chain = text.split()
            for hop in range(3):
                chain[5 + 20 * hop] = f"x{i}"
                add(" ".join(chain))
        if i % 8 == 2:  # a run of words in common with another document
            shared = " ".join(text.split()[10:30])
            add(f"{' '.join(words(rng, 50))} {shared} {' '.join(words(rng, 50))}")
        if i % 8 == 3:
            add("short " + " ".join(words(rng, 3)))
        if i % 8 == 4:
            add(f"mail m{i}@example.org or 10.0.0.{i % 250} " + " ".join(words(rng, 30)))
        if i % 60 == 5:
            add("\x00 \r\n")
            add(text, "train", doc_id="twice")
            add(text, "train", doc_id="twice")
    rng.shuffle(documents)
    return documents


def everything_on(curate, **changed):
    return curate.settings(**{
        "thresholds": {"min_words": 10.0, "max_curly_brackets": 0.0},
        "mask": ("email", "ip"),
        "near_duplicates": "drop",
        "decontaminate": "held-out",
        "partitions": 3,
        **changed,
    })  # fmt: skip


def assert_balance(documents, result):
    """In = kept + dropped by reason, in documents and bytes, in all and by split and source."""
    ended = [(split, doc_id, source) for split, doc_id, source, *_ in result.kept]
    ended += [(r.split, r.doc_id, r.source) for r in result.dropped]
    assert sorted(ended) == sorted(d[:3] for d in documents)

    report = result.report
    accounts = [(report["total"], documents, list(SPLITS), None)]
    for split in SPLITS:
        for source, account in report["splits"][split]["by_source"].items():
            of_source = [d for d in documents if d[0] == split and d[2] == source.encode()]
            accounts.append((account, of_source, [split], source.encode()))
    assert sum(len(of_source) for _, of_source, _, _ in accounts[1:]) == len(documents)
    for account, given_documents, splits, source in accounts:
        kept = [k for k in result.kept if k[0] in splits and source in (None, k[2])]
        gone = [r for r in result.dropped if r.split in splits and source in (None, r.source)]
        assert account["in"] == {
            "documents": len(given_documents),
            "bytes": sum(len(d[3]) for d in given_documents),
        }
        assert account["kept"]["documents"] == len(kept)
        assert account["kept"]["bytes"] == sum(len(k[3]) for k in kept) == sum(k[4] for k in kept)
        for reason, numbers in account["dropped"].items():
            of_reason = [r for r in gone if r.reason == reason]
            expected = {"documents": len(of_reason), "bytes": sum(r.raw_bytes for r in of_reason)}
            assert numbers == expected
        assert set(account["dropped"]) == {r.reason for r in gone}
        for name, kept_name in (("documents", "documents"), ("bytes", "raw_bytes")):
            dropped = sum(numbers[name] for numbers in account["dropped"].values())
            assert account["in"][name] == account["kept"][kept_name] + dropped


@pytest.mark.parametrize("gives_way", ["held-out", "train", "off"])
def test_every_document_ends_once_and_the_books_balance(curate, gives_way):
    documents = everything()
    result = curate(documents, everything_on(curate, decontaminate=gives_way))
    assert_balance(documents, result)
    reasons = {"too_few_words", "empty", "exact_duplicate", "near_duplicate", "contaminated"}
    assert set(result.reasons().values()) == reasons - (
        {"contaminated"} if gives_way == "off" else set()
    )


def test_order_batches_partitions_and_workers_change_nothing(curate):
    documents = everything()
    first = curate(documents, everything_on(curate))
    assert len(first.kept) > 100
    rng = random.Random(2)
    for partitions, size, workers in ((1, 7, 1), (8, 500, 1), (3, 40, 3)):
        rng.shuffle(documents)
        again = curate(documents, everything_on(curate, partitions=partitions), size, workers)
        assert again == first


@few_pipelines
@given(DOCUMENTS, st.integers(1, 5), st.sampled_from(["drop", "keep"]))
def test_books_balance_on_random_documents(curate, documents, size, duplicates):
    documents = [(s, b"%s-%d" % (d, i), *rest) for i, (s, d, *rest) in enumerate(documents)]
    thresholds = {"min_words": 1.0, "max_curly_brackets": 0.0}
    exact = curate.settings(thresholds=thresholds, exact_duplicates=duplicates)
    assert_balance(documents, curate(documents, exact, size))


@few_pipelines
@given(DOCUMENTS)
def test_one_copy_of_each_text_stays_and_held_out_comes_first(curate, documents):
    result = curate(documents, curate.settings(partitions=3), 4)
    copies = defaultdict(set)
    for split, doc_id, source, text in documents:
        clean = normalize(text.decode()).encode()
        if clean:
            copies[content_key(clean)].add((split, doc_id, source))
    keys = [content_key(k[3]) for k in result.kept]
    assert sorted(keys) == sorted(copies)  # each once, over both splits
    for (split, doc_id, source, *_), key in zip(result.kept, keys, strict=True):
        assert (split, doc_id, source) in copies[key]
        assert split == min(s for s, _, _ in copies[key])  # "eval" < "train"
        assert doc_id == min(d for s, d, _ in copies[key] if s == split)


# ---- copies

SAME = b"The same text."


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_exact_copies_over_splits(curate, duplicates):
    documents = [
        ("train", b"a", b"s", SAME),
        ("eval", b"z", b"s", SAME.upper()),
        ("train", b"b", b"s", b"  The same\n\n\ntext. "),
        ("train", b"c", b"s", b"Another text."),
        ("train", b"d", b"s", "caf\u00e9 au lait".encode()),
        ("train", b"e", b"s", "cafe\u0301\x00 au lait".encode()),
        *[("train", b"twice", b"s", b"Written two times.")] * 2,  # same id, same text
        *[("train", b"f", b"s", b"text %d" % i) for i in range(3)],  # same id, other texts
    ]
    result = curate(documents, curate.settings(exact_duplicates=duplicates), size=3)
    if duplicates == "keep":
        assert not result.dropped
        assert len(result.kept) == len(documents)
        return
    assert result.ids("eval") == [b"z"]
    assert result.ids("train") == [b"c", b"d", b"f", b"f", b"f", b"twice"]
    copies = {r.doc_id: r.kept_copy for r in result.dropped}
    assert copies == {b"a": b"z", b"b": b"z", b"e": b"d", b"twice": b"twice"}


def test_order_does_not_choose_between_copies_that_share_their_id(curate):
    documents = [
        ("train", b"a", b"web", SAME),
        ("train", b"a", b"books", SAME),
        ("train", b"a", b"books", SAME + b"\n"),
    ]
    forwards = curate(documents, curate.settings())
    assert len(forwards.kept) == 1
    assert curate(documents[::-1], curate.settings()) == forwards


def test_a_copy_that_a_rule_drops_is_no_reason_to_drop_another(curate):
    documents = [("eval", b"a", b"s", b"alpha { beta"), ("train", b"b", b"s", b"alpha   beta")]
    result = curate(documents, curate.settings(thresholds={"max_curly_brackets": 0.0}))
    assert (result.ids("train"), result.ids("eval")) == ([b"b"], [])


def test_near_copies_over_splits_keep_the_held_out_one(curate):
    rng = random.Random(5)
    text = words(rng, 100)
    near, longer = text.copy(), [*text, "and", "more"]
    near[50] = "changed"
    documents = [
        ("train", b"a", b"s", " ".join(text).encode()),
        ("eval", b"z", b"s", " ".join(near).encode()),
        ("train", b"b", b"s", " ".join(longer).encode()),
        ("train", b"other", b"s", " ".join(words(rng, 100)).encode()),
    ]
    result = curate(documents, curate.settings(near_duplicates="drop"))
    assert (result.ids("eval"), result.ids("train")) == ([b"z"], [b"other"])
    for r in result.dropped:
        assert (r.reason, r.kept_copy, r.threshold) == ("near_duplicate", b"z", 0.8)
        assert 0.8 <= r.value < 1
    assert len(curate(documents, curate.settings()).kept) == 4  # near_duplicates kept


def test_exact_copies_that_are_to_stay_go_as_near_ones(curate):
    """What near_duplicates = drop with exact_duplicates = keep comes to."""
    text = " ".join(words(random.Random(6), 30)).encode()
    documents = [(s, b"%d" % i, b"s", text) for i, s in enumerate(["train", "eval", "train"])]
    both = curate.settings(exact_duplicates="keep", near_duplicates="drop")
    result = curate(documents, both)
    assert result.ids("eval") == [b"1"]
    assert result.reasons() == {b"0": "near_duplicate", b"2": "near_duplicate"}


# ---- what a dropped document says, what a kept one looks like


def test_dropped_documents_say_why(curate):
    documents = [
        ("train", b"short", b"web", b"ab"),
        ("train", b"lines", b"web", b"same line\nsame line\nsame line\r\n" + b"long " * 100),
        ("eval", b"first", b"web", b"A sound text."),
        ("train", b"copy", "übrig".encode(), b"a sound  text.\n"),
        ("train", b"empty", b"web", b"\x00\n"),
    ]
    thresholds = {"min_words": 3.0, "max_duplicate_line_fraction": 0.25}
    result = curate(documents, curate.settings(thresholds=thresholds))
    found = {r.doc_id: (r.split, r.source, *r[4:9]) for r in result.dropped}
    assert found == {
        b"short": ("train", b"web", 2, "too_few_words", 1, 3.0, b""),
        b"lines": ("train", b"web", 531, "duplicate_lines", 0.5, 0.25, b""),
        b"copy": ("train", "übrig".encode(), 15, "exact_duplicate", 1, 1, b"first"),
        b"empty": ("train", b"web", 2, "empty", 0, 1, b""),
    }
    excerpts = {r.doc_id: r.excerpt for r in result.dropped}
    assert excerpts[b"copy"] == "a sound  text."
    assert excerpts[b"lines"].startswith("same line\nsame line\n")
    assert len(excerpts[b"lines"]) == 200


def test_indentation_survives_and_byte_count_is_that_of_the_kept_text(curate):
    raw = "def f():  \r\n    return 'é'\r\n\r\n\r\n\r\n".encode()
    result = curate([("train", b"a", b"s", raw)], curate.settings())
    text = "def f():\n    return 'é'".encode()
    assert [kept[:5] for kept in result.kept] == [("train", b"a", b"s", text, len(text))]


def test_other_languages_go(curate):
    texts = {
        b"en": "The weather was fine, and so we went for a long walk along the river.",
        b"de": "Das Wetter war schön, und so gingen wir lange am Fluss spazieren.",
        b"fr": "Le temps était beau, alors nous avons marché longtemps près de la rivière.",
        b"none": "123 456 789",
    }
    documents = [("train", i, b"s", t.encode()) for i, t in texts.items()]
    result = curate(documents, curate.settings(languages=("en", "fr"), unknown_language="drop"))
    assert result.ids("train") == [b"en", b"fr"]
    assert result.reasons() == {b"de": "wrong_language", b"none": "wrong_language"}
    assert {(r.value, r.threshold) for r in result.dropped} == {(0.0, 0.65)}
    # What is in no language for certain stays, unless asked.
    result = curate(documents, curate.settings(languages=("en", "fr")))
    assert result.reasons() == {b"de": "wrong_language"}
    strict = curate.settings(languages=("en",), min_language_score=1.0, unknown_language="drop")
    unsure = {r.doc_id: r.value for r in curate(documents, strict).dropped}[b"en"]
    assert 0.5 < unsure < 1  # its language is right, and not certain enough
    assert not curate(documents, curate.settings(languages=("en",), min_language_score=1.0)).dropped


def test_masking_is_counted_and_comes_before_the_search_for_copies(curate):
    documents = [
        ("train", b"a", b"s", b"Write to ann@example.org or https://example.org/x?y=1, now."),
        ("train", b"b", b"s", b"Write to bob@example.org or https://example.com/z, now."),
        ("train", b"c", b"s", b"Hosts 192.168.0.1 and 10.0.0.1; version 1.2.3.4.5 is none."),
    ]
    result = curate(documents, curate.settings(mask=("email", "url", "ip")), size=2)
    assert result.masked == {"email": 2, "url": 2, "ip": 2}
    assert [k[3].decode() for k in result.kept] == [
        "Write to <EMAIL> or <URL>, now.",
        "Hosts <IP> and <IP>; version 1.2.3.4.5 is none.",
    ]
    assert result.reasons() == {b"b": "exact_duplicate"}
    assert result.report["masked"] == {"email": 2, "ip": 2, "url": 2}
    only = curate(documents, curate.settings(mask=("email",)))
    assert only.masked == {"email": 2}
    assert b"https://example.org" in only.kept[0][3]


# ---- nothing to do


@pytest.mark.parametrize("gives_way", ["held-out", "train", "off"])
def test_empty_splits_stay_empty(curate, gives_way):
    """No held-out documents; none at all; none that the rules leave; none with an n-gram."""
    rng = random.Random(8)
    documents = [("train", b"%d" % i, b"s", " ".join(words(rng, 30)).encode()) for i in range(5)]
    full = everything_on(curate, decontaminate=gives_way, benchmarks=("of no concern",))
    assert len(curate(documents, full).ids("train")) == 5
    held_out = [("eval", *d[1:]) for d in documents]
    assert len(curate(held_out, full).ids("eval")) == 5
    if gives_way != "held-out":
        return  # the rest takes the same way
    assert curate([], full).kept == []
    short = [(s, b"%d" % i, b"s", b"too short") for i, s in enumerate(SPLITS)]
    assert Counter(curate(short, full).reasons().values()) == {"too_few_words": 2}
    short = [(s, b"%d" % i, b"s", b"short %d" % i) for i, s in enumerate(SPLITS)]
    no_rules = everything_on(curate, thresholds={}, decontaminate=gives_way)
    assert len(curate(short, no_rules).kept) == 2


def test_settings_survive_the_trip_through_ml_metadata(curate):
    full = everything_on(curate, languages=("en",), benchmarks=("a", "b"))
    assert CurateConfig.from_json(full.config.to_json()) == full.config
    assert CurateConfig.from_json(curate.settings().config.to_json()) == curate.settings().config
