"""Decontamination: which split gives way, and that nothing of the other stays."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.decontaminate import ngram_set, overlaps
from components.curate.near_duplicates import shingle
from components.ingest.config import CorpusConfig
from pipeline.benchmark_texts import read_benchmarks
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
    forbidden = ngram_set(others, n)
    assert len(forbidden) == len(set().union(*(ngrams_of(t, n) for t in others)))
    found = overlaps(shingle(texts, n), forbidden).tolist()
    hits = [len(ngrams_of(t, n) & set().union(*(ngrams_of(o, n) for o in others))) for t in texts]
    assert found == hits


def test_no_texts_give_no_ngrams():
    assert len(ngram_set([], 13)) == len(ngram_set(["too short"], 13)) == 0
    assert ngram_set(["a b"], 1).dtype == np.uint64


# ---- benchmark files

READ = CorpusConfig(max_document_bytes=1000, eval_fraction=0.05)


def test_benchmark_files_are_read_as_a_corpus_is(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_text("three")
    assert sorted(read_benchmarks([str(tmp_path)], READ)) == ["one", "three", "two"]
    assert read_benchmarks([], READ) == ()


def test_a_benchmark_that_cannot_be_read_whole_is_an_error(tmp_path):
    bad = tmp_path / "a.jsonl"
    bad.write_text('{"text": "one"}\n{"question": "two"}\n')
    with pytest.raises(TokenmillError, match=r"curate.benchmark_files: .*a.jsonl:2: missing_text"):
        read_benchmarks([str(bad)], READ)
    with pytest.raises(TokenmillError, match=r"curate.benchmark_files .*nowhere"):
        read_benchmarks([str(tmp_path / "nowhere")], READ)
