"""Decontamination: which split gives way, and that nothing of the other stays."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.benchmarks import read_benchmark_texts
from components.curate.decontaminate import common_above, count_in
from components.curate.near_duplicates import shingle
from components.ingest.config import CorpusConfig
from pipeline.other_texts import read_benchmarks
from tokenmill.errors import TokenmillError

N = 13


def ngrams_of(text, n=N):
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def overlapping(seed=3, count=60):
    """Documents of 40 words; some share a run of 12, 13 or more words with another."""
    rng = random.Random(seed)
    documents, runs = [], []
    for i in range(count):
        words = [f"w{rng.randrange(10_000)}" for _ in range(40)]
        if runs and i % 2:
            run = rng.choice(runs)[: rng.choice([12, 13, 20])]
            start = rng.randrange(20)
            words[start : start + len(run)] = [w.upper() for w in run]  # case is no escape
        else:
            runs.append(words[10:30])
        split = "eval" if rng.random() < 0.4 else "train"
        documents.append((split, b"%03d" % i, b"s", " ".join(words).encode()))
    return documents


def all_ngrams(texts):
    return set().union(*(ngrams_of(t.decode()) for t in texts))


def texts_of(documents, split):
    return [d[3] for d in documents if d[0] == split]


def sharing(documents, split, forbidden):
    return sorted(d[1] for d in documents if d[0] == split and ngrams_of(d[3].decode()) & forbidden)


@pytest.mark.parametrize("gives_way", ["held-out", "train", "off"])
def test_the_side_that_gives_way_loses_just_what_overlaps(curate, gives_way):
    documents = overlapping()
    result = curate(documents, curate.settings(decontaminate=gives_way), size=7)
    loser = {"held-out": "eval", "train": "train", "off": None}[gives_way]
    other = "train" if loser == "eval" else "eval"
    expected = sharing(documents, loser, all_ngrams(texts_of(documents, other)))
    assert sorted(r.doc_id for r in result.dropped) == expected
    assert {r.split for r in result.dropped} <= {loser}
    assert {r.reason for r in result.dropped} <= {"contaminated"}
    assert result.ids(other) == sorted(d[1] for d in documents if d[0] == other)
    shared = all_ngrams(texts_of(result.kept, "train")) & all_ngrams(texts_of(result.kept, "eval"))
    assert bool(shared) == (gives_way == "off")
    assert bool(expected) == (gives_way != "off")
    for r in result.dropped:  # the value is how many n-grams of the document are shared
        (text,) = [d[3].decode() for d in documents if d[1] == r.doc_id]
        assert r.value == len(ngrams_of(text) & all_ngrams(texts_of(documents, other)))
        assert r.threshold == 0


@pytest.mark.parametrize("gives_way", ["held-out", "train", "off"])
def test_benchmarks_are_never_in_train(curate, gives_way):
    documents = overlapping()
    benchmark = " ".join(documents[0][3].decode().split()[8:32])  # a run that others took over
    settings = curate.settings(decontaminate=gives_way, benchmarks=(benchmark, "too short"))
    result = curate(documents, settings, size=7)
    assert sharing(documents, "train", ngrams_of(benchmark))  # there is something to guard
    assert not sharing(result.kept, "train", ngrams_of(benchmark))
    if gives_way == "off":  # benchmarks are no reason to drop held-out documents
        assert result.ids("eval") == sorted(d[1] for d in documents if d[0] == "eval")
        dropped = sharing(documents, "train", ngrams_of(benchmark))
        assert sorted(r.doc_id for r in result.dropped) == dropped


def test_a_train_document_lost_to_a_benchmark_costs_no_held_out_document(curate):
    text = " ".join(f"w{i}" for i in range(30)).encode()
    documents = [("train", b"a", b"s", text + b" x"), ("eval", b"b", b"s", text + b" y")]
    settings = curate.settings(decontaminate="held-out", benchmarks=(text.decode(),))
    result = curate(documents, settings)
    assert result.reasons() == {b"a": "contaminated"}
    assert result.ids("eval") == [b"b"]


WORDS = st.lists(st.sampled_from("abcA"), max_size=8).map(" ".join)


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=3), st.integers(1, 4))
def test_overlaps_are_those_of_python_sets(texts, others, n):
    forbidden = np.unique(shingle(others, n, bare=True).hashes)
    assert len(forbidden) == len(set().union(*(ngrams_of(t, n) for t in others)))
    found = count_in(shingle(texts, n, bare=True), forbidden).tolist()
    hits = [len(ngrams_of(t, n) & set().union(*(ngrams_of(o, n) for o in others))) for t in texts]
    assert found == hits


def numbered(prefix, count):
    return " ".join(f"{prefix}{i}" for i in range(count))


def test_a_record_says_which_words_are_shared_and_with_whom(curate):
    run = numbered("Run", 20)
    documents = [
        ("train", b"t", b"s", f"{numbered('a', 20)} ({run}); {numbered('b', 20)}".encode()),
        ("eval", b"e", b"s", f"{numbered('c', 20)} {run.lower()}, {numbered('d', 20)}".encode()),
    ]
    for gives_way, gone, stays in (("held-out", b"e", b"t"), ("train", b"t", b"e")):
        (record,) = curate(documents, curate.settings(decontaminate=gives_way)).dropped
        assert (record.doc_id, record.kept_copy) == (gone, stays)
        assert record.shared.lower() == run.lower()
        assert record.value == 20 - N + 1


HEADER = "This text is free and may be copied and changed by all who keep these two lines of it."


def with_header(count, header=HEADER, words=40):
    """Documents of few words each after the same header: the words after it coincide often."""
    rng = random.Random(1)
    return [
        (
            "eval" if i % 10 == 0 else "train",
            b"%03d" % i,
            b"s",
            f"{header} {' '.join(rng.choice('abcdefghij') * 4 for _ in range(words))}".encode(),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("gives_way", ["held-out", "train"])
@pytest.mark.parametrize("count", [10, 100])
def test_a_header_that_many_share_contaminates_nothing_but_what_follows_it_does(
    curate, gives_way, count
):
    documents = with_header(count)
    stolen = " ".join(f"w{i}" for i in range(30))
    split, doc_id, source, _ = documents[20 % count]
    assert split == "eval"
    documents[20 % count] = (split, doc_id, source, f"{HEADER} {stolen}".encode())
    documents[5] = ("train", b"thief", b"s", f"{HEADER} {stolen} and more".encode())
    result = curate(documents, curate.settings(decontaminate=gives_way), size=7)
    (record,) = result.dropped
    assert record.doc_id == (doc_id if gives_way == "held-out" else b"thief")
    assert record.shared == stolen


def test_a_text_all_of_whose_words_are_shared_is_contaminated_however_many_have_them(curate):
    documents = [*with_header(100), ("eval", b"only", b"s", HEADER.encode())]
    result = curate(documents, curate.settings(decontaminate="held-out"))
    assert result.reasons() == {b"only": "contaminated"}


def test_how_many_is_a_key(curate):
    documents = with_header(40)
    settings = curate.settings(decontaminate="held-out", decontaminate_max_documents=40)
    assert not curate(documents, settings).ids("eval")
    assert [common_above(n, "auto") for n in (4, 20, 300, 10**6)] == [3, 4, 10, 100]


def test_texts_without_blanks_are_compared_by_characters(curate):
    rng = random.Random(2)

    def text(alphabet, size):
        return "".join(rng.choice(alphabet) for _ in range(size))

    han = "".join(map(chr, range(0x4E00, 0x5000)))
    thai = "กขคงจชซญดตถทนบปพมยรลวสหอาะิีุูเแโ"
    documents, shared = [], {}
    for name, alphabet, run in (
        (b"h", han, 30),
        (b"t", thai, 120),
        (b"x", "0123456789abcdef", 150),
    ):
        shared[name] = text(alphabet, run)
        documents += [
            ("train", name * 2, b"s", text(alphabet, 300) + shared[name] + text(alphabet, 300)),
            ("eval", name, b"s", text(alphabet, 400) + shared[name] + text(alphabet, 270)),
            ("eval", name * 3, b"s", text(alphabet, 700)),
        ]
    documents = [(*document[:3], document[3].encode()) for document in documents]
    found = curate(documents, curate.settings(decontaminate="held-out")).dropped
    assert {(r.doc_id, r.kept_copy) for r in found} == {(name, name * 2) for name in shared}
    for record in found:
        assert record.shared in shared[record.doc_id]
        assert len(record.shared) > 0.6 * len(shared[record.doc_id])


def test_short_benchmark_texts_are_looked_for_as_a_whole(curate):
    question, chinese = (
        "At what temperature does water boil at sea level?",
        "水在海平面沸腾时的温度是",
    )
    documents = [
        ("train", b"asked", b"s", f"He said: “{question.upper()}” and left".encode()),
        ("train", b"chinese", b"s", f"有人问，{chinese}多少度".encode()),
        ("train", b"part", b"s", b"does water boil at sea level? yes"),
        *(("train", b"t%d" % i, b"s", b"so thank you very much for it %d" % i) for i in range(20)),
        ("eval", b"held-out", b"s", question.encode()),
    ]  # fmt: skip
    benchmarks = (question, chinese, "yes", "thank you very much for it", numbered("w", 13))
    result = curate(documents, curate.settings(benchmarks=benchmarks), size=5)
    found = {r.doc_id: (r.shared, r.kept_copy, r.value) for r in result.dropped}
    assert found == {
        b"asked": (question.upper().rstrip("?"), b"benchmark text 1", 1),
        b"chinese": (chinese, b"benchmark text 2", 1),
    }
    assert result.curation.benchmarks.to_json() == {
        "texts": 5, "by_ngrams": 1, "as_a_whole": 2, "too_short": 1, "too_common": 1,
        "documents": 2,
    }  # fmt: skip


@pytest.mark.parametrize("texts", [(), ("", "yes", "..."), ("a b c d",)])
def test_benchmark_texts_that_guard_nothing_are_counted(texts):
    benchmarks = read_benchmark_texts(texts, N)
    assert len(benchmarks.table.hashes) == 0
    assert benchmarks.counts["too_short"] == benchmarks.counts["texts"] == len(texts)


# ---- benchmark files

READ = CorpusConfig(max_document_bytes=1000, eval_fraction=0.05)


def test_benchmark_files_are_read_as_a_corpus_is(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_text("three")
    assert sorted(read_benchmarks([str(tmp_path)], READ)) == ["one", "three", "two"]
    assert read_benchmarks([], READ) == ()
    first, *others = read_benchmarks([str(tmp_path)], READ, ["bits_per_byte", "cloze"])
    assert first == "one"
    assert len(others) == 2 + 263 + 2 * 200  # of cloze the passage and the word


def test_a_benchmark_that_cannot_be_read_whole_is_an_error(tmp_path):
    bad = tmp_path / "a.jsonl"
    bad.write_text('{"text": "one"}\n{"question": "two"}\n')
    with pytest.raises(TokenmillError, match=r"curate.benchmark_files: .*a.jsonl:2: missing_text"):
        read_benchmarks([str(bad)], READ)
    with pytest.raises(TokenmillError, match=r"curate.benchmark_files .*nowhere"):
        read_benchmarks([str(tmp_path / "nowhere")], READ)
