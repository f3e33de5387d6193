"""Rows by quality: how scores are cut into buckets, what the books say, and how often rows come."""

import hashlib
import itertools
import pathlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import TokenizedDocument, in_columns
from tfx.types import Channel, standard_artifacts

from components.artifacts import PackedRows, Tokenizer
from components.pack.component import Packer, PackerExecutor
from components.pack.job import PackJob
from components.pack.quality_buckets import (
    MAX_BUCKETS,
    MIN_BUCKET_ROWS,
    bucket_numbers,
    cut_buckets,
)
from components.pack.transforms import pack_shard, write_manifest
from components.tokenize.apply_transform import _transformed
from components.train import fingerprint
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.packed_rows import SourceCounts, read_packed_manifest
from tokenmill.errors import TokenmillError
from tokenmill.provenance.explain import times_trained
from tokenmill.provenance.rows import documents_of_row
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.keys import stable_hash
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.rows.mixture import Mixture
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import row_order

VOCAB, LENGTH, BINS = 300, 32, 1 << 16
# SHA-256 of manifest.json, which has those of the rows, as it was before quality could weigh.
BEFORE = {
    "plain": "2e8dec13167f89a477f1d0181b878a9780e1c7679ffd8a7022150c9aab77a18f",
    "weighted": "ca9ecbddefa4ba563a8b571c9769c78be2a3c874328b364e3c7acc92add7a050",
    "masked": "4f9de0b334e303b614a97789739ee89933d190414b60576acf0bb2bcd5fd2043",
}
WEIGHTS = {"source_weights": {"wiki": 1.0, "code": 2.0, "news": 0.0}}
OPTIONS = {
    "plain": {},
    "weighted": {**WEIGHTS, "max_repetitions": 2},
    "masked": {"task": "masked-lm", "mask_rate": 0.15, **WEIGHTS},
}


def made(count, seed=5, scored=True):
    """Documents of three sources, one in ten empty, with scores that rise in none of them."""
    rng = np.random.default_rng(seed)
    tokens = [
        [] if i % 10 == 9 else rng.integers(16, VOCAB, rng.integers(1, 90)).tolist()
        for i in range(count)
    ]
    scores = rng.beta(0.6, 1.0, count) if scored else np.full(count, -1.0)
    return [
        TokenizedDocument(
            b"doc-%05d" % i,
            (b"wiki", b"code", b"news")[i % 3],
            2 * len(ids),
            np.array(ids, np.int32),
            label=(b"x", b"y")[i % 2],
            language=(b"en", b"de")[i % 7 == 0] if scored else b"en",
            score=float(scores[i]),
        )
        for i, ids in enumerate(tokens)
    ]


def buckets_of(documents, tokens_of_bucket=200):
    """The buckets of each source, as the packer's transform finds them."""
    found = {}
    for source in sorted({d.source for d in documents}):
        totals = Counter()
        for document in documents:
            if document.source == source:
                totals[min(BINS - 1, int(np.float32(document.score) * BINS))] += (
                    len(document.token_ids) + 1
                )
        bins, weights = zip(*sorted(totals.items()), strict=True)
        found[source.decode()] = cut_buckets(np.array(bins), np.array(weights), tokens_of_bucket)
    return found


def pack(home, documents, flags, buckets=None, shards=3, label_names=None, **options):
    """Writes the train split; returns the artifact's URI."""
    directory = str(home / "Split-train")
    job = PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=shards, **options)

    def shard_of(document):
        return stable_hash(document.doc_id) % shards

    parts = itertools.groupby(sorted(documents, key=shard_of), shard_of)
    outcomes = [
        pack_shard(
            (shard, [in_columns(list(mine))]), directory, job, flags, label_names, None, buckets
        )
        for shard, mine in parts
    ]
    write_manifest(outcomes, directory, job, flags, label_names, buckets)
    return str(home)


@pytest.fixture(scope="module")
def flags():
    from conftest import make_flags

    return make_flags()


@pytest.fixture(scope="module")
def documents():
    return made(300)


@pytest.fixture(scope="module")
def bucketed(tmp_path_factory, documents, flags):
    home = tmp_path_factory.mktemp("bucketed")
    return pack(home, documents, flags, buckets_of(documents), quality_weighting=2.0)


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("scored", [False, True])
def test_without_the_key_every_byte_is_as_it_was(tmp_path, flags, name, scored):
    documents = made(90, scored=False)
    if scored:  # a score that nothing asks for changes nothing
        documents = [d._replace(score=i % 7 / 7) for i, d in enumerate(documents)]
    uri = pack(tmp_path, documents, flags, **OPTIONS[name])
    manifest = pathlib.Path(uri, "Split-train", "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == BEFORE[name]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 10**9), min_size=1, max_size=50),
    st.integers(1, 10**9),
)
def test_buckets_part_the_scores_into_shares_of_like_weight(histogram, tokens_of_bucket):
    bins, weights = (np.array(c) for c in zip(*sorted(histogram.items()), strict=True))
    found = cut_buckets(bins, weights, tokens_of_bucket)
    assert 1 <= len(found) <= MAX_BUCKETS
    assert found[0].first_bin == bins[0]
    firsts = [bucket.first_bin for bucket in found]
    assert firsts == sorted(set(firsts))
    total, count = int(weights.sum()), min(MAX_BUCKETS, max(1, weights.sum() // tokens_of_bucket))
    for bucket, end in zip(found, [*firsts[1:], BINS], strict=True):
        mine = [b for b in histogram if bucket.first_bin <= b < end]
        weight = sum(histogram[b] for b in mine)
        mean = sum((b + 0.5) / BINS * histogram[b] for b in mine) / weight
        assert bucket.mean_score == pytest.approx(mean, rel=1e-12)
        # Within half a bin of documents at either border.
        assert weight <= total / count + max(histogram[b] for b in mine)


def test_a_source_that_is_small_or_scores_alike_is_one_bucket():
    few = cut_buckets(np.array([1, 9]), np.array([10, 10]), 11)
    alike = cut_buckets(np.array([7]), np.array([10**6]), 10)
    assert [b.first_bin for b in few] == [1]
    assert [b.mean_score for b in alike] == [7.5 / BINS]


def test_a_document_is_in_the_bucket_that_its_score_falls_into(documents):
    buckets = buckets_of(documents)
    assert {len(of_source) for of_source in buckets.values()} == {MAX_BUCKETS}
    sources = [d.source.decode() for d in documents]
    scores = np.array([d.score for d in documents], np.float32)
    for source, score, number in zip(
        sources, scores.tolist(), bucket_numbers(sources, scores, buckets).tolist(), strict=True
    ):
        fits = [i for i, b in enumerate(buckets[source]) if b.lowest_score <= score]
        assert number == fits[-1]


def test_rows_hold_one_bucket_each_and_the_books_balance(bucketed, documents):
    split = PackedSplit(bucketed, "train")
    manifest, by_id = split.manifest, {d.doc_id: d for d in documents}
    buckets, first = buckets_of(documents), 0
    for shard in manifest.shards:
        assert shard.rows_by_source == [
            (source, sum(rows for _, _, rows in mine))
            for source, mine in itertools.groupby(shard.rows_by_bucket, lambda row: row[0])
        ]
        for source, number, rows in shard.rows_by_bucket:
            edges = [b.lowest_score for b in buckets[source]] + [1.01]
            for row in range(first, first + rows):
                for placed in documents_of_row(bucketed, "train", row):
                    document = by_id[placed.doc_id]
                    assert document.source.decode() == source
                    assert edges[number] <= np.float32(document.score) < edges[number + 1]
            first += rows
    assert first == split.rows
    for source, whole in manifest.by_source.items():
        mine = [b for b in manifest.by_bucket if b.source == source]
        for name in SourceCounts.model_fields:
            assert sum(getattr(b, name) for b in mine) == getattr(whole, name)
    for bucket in manifest.by_bucket:
        assert sum(bucket.loss_tokens_by_language.values()) == bucket.loss_tokens
    assert {b.name for b in manifest.by_bucket} == set(Mixture.of(manifest).sources)


def test_what_a_bucket_loses_stops_the_run(tmp_path, documents, flags):
    job = PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1, quality_weighting=1.0)
    buckets, directory = buckets_of(documents), str(tmp_path)
    outcome = pack_shard((0, [in_columns(documents)]), directory, job, flags, None, None, buckets)
    key, (counts, languages) = next(iter(outcome.counts.by_bucket.items()))
    less = counts.model_copy(update={"tokens": counts.tokens - 1})
    outcome.counts.by_bucket[key] = (less, languages)
    with pytest.raises(ArithmeticError, match="its quality buckets"):
        write_manifest([outcome], directory, job, flags, None, buckets)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
@pytest.mark.parametrize("source_weights", [{}, {"wiki": 1.0, "code": 3.0, "news": 0.0}])
def test_rows_are_read_by_their_score_within_what_their_source_weighs(
    tmp_path, documents, flags, exponent, source_weights
):
    buckets = buckets_of(documents)
    uri = pack(
        tmp_path, documents, flags, buckets,
        quality_weighting=exponent, source_weights=source_weights,
    )  # fmt: skip
    split = PackedSplit(uri, "train")
    order, steps, batch = row_order(split, 64, seed=3), 640, 64
    numbers = np.concatenate([order.rows_of_step(step)[0] for step in range(steps)])
    reads = np.bincount(numbers, minlength=split.rows)
    rows, read, first = Counter(), Counter(), 0
    for shard in split.manifest.shards:
        for source, number, count in shard.rows_by_bucket:
            rows[source, number] += count
            read[source, number] += int(reads[first : first + count].sum())
            first += count
    whole = {s: sum(n for (source, _), n in rows.items() if source == s) for s in buckets}
    share = source_weights or whole
    for source, of_source in buckets.items():
        mine = sum(n for (s, _), n in read.items() if s == source)
        assert mine == pytest.approx(steps * batch * share[source] / sum(share.values()), abs=40)
        if not share[source]:
            continue
        often = [read[source, n] / rows[source, n] for n in range(len(of_source))]
        for bucket, times in zip(of_source, often, strict=True):
            expected = (bucket.mean_score / of_source[-1].mean_score) ** exponent
            # Places of the mixture's block are whole ones.
            assert times / often[-1] == pytest.approx(expected, rel=0.06, abs=0.02)
        assert often == sorted(often)


def test_a_limit_of_repetitions_holds_for_each_bucket(tmp_path, documents, flags):
    uri = pack(
        tmp_path, documents, flags, buckets_of(documents), quality_weighting=4.0,
        max_repetitions=3,
    )  # fmt: skip
    manifest = read_packed_manifest(uri, "train")
    mixture = Mixture.of(manifest)
    assert mixture.rows_available == 3 * manifest.rows
    early = mixture.repetitions(manifest.rows)
    assert max(early.values()) == 3.0
    assert min(early.values()) < 0.5
    assert set(mixture.repetitions(3 * manifest.rows).values()) == {3.0}


def test_why_counts_the_reads_that_training_makes(bucketed):
    split = PackedSplit(bucketed, "train")
    order = row_order(split, 8, seed=11)
    numbers = np.concatenate([order.rows_of_step(step)[0] for step in range(120)])
    assert len(numbers) > 2 * split.rows
    counted = Counter(numbers.tolist())
    rows = list(range(0, split.rows, 5))
    assert times_trained(bucketed, rows, 120, 8, 11) == {row: counted[row] for row in rows}


def test_classified_documents_weigh_by_quality_too(tmp_path, documents, flags):
    uri = pack(
        tmp_path, documents, flags, buckets_of(documents), label_names=[b"x", b"y"],
        task="classification", classes=2, quality_weighting=1.0,
    )  # fmt: skip
    manifest = read_packed_manifest(uri, "train")
    rows = Counter()
    for shard in manifest.shards:
        for source, number, count in shard.rows_by_bucket:
            rows[source, number] += count
    assert rows == {(b.source, b.bucket): b.documents - b.dropped_empty for b in manifest.by_bucket}


def test_other_weights_are_another_training(tmp_path, documents, flags):
    buckets, prints = buckets_of(documents), []
    for exponent in (1.0, 2.0):
        home = tmp_path / str(exponent)
        home.mkdir()
        uri = pack(home, documents, flags, buckets, quality_weighting=exponent)
        prints.append(fingerprint.rows_fingerprint(PackedSplit(uri, "train")))
    assert prints[0] != prints[1]


def transformed(home, documents, scored=True):
    """Files of both splits as Transform leaves them: the curated text of each, tokenized."""
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(home / "transformed"), '["train", "eval"]'

    def token_columns(batch):
        ids = [
            np.frombuffer(t, np.uint8).astype(np.int64) for t in batch.column("text").to_pylist()
        ]
        return {"token_ids": pa.array(ids, pa.large_list(pa.int64()))}

    for split, mine in (("train", documents), ("eval", documents[::5])):
        batch = document_batch(
            [d.doc_id for d in mine],
            [d.source for d in mine],
            [(d.token_ids % 200 + 20).astype(np.uint8).tobytes() for d in mine],
            languages=[d.language for d in mine],
            scores=[d.score for d in mine] if scored else None,
        )
        path, counts = str(home / f"{split}.gz"), []
        write_tfrecords(path, [record for _, record in encode_documents(batch)], gzip=True)
        records = _transformed(path, token_columns, counts)
        target = f"{split_directory(examples.uri, split)}/transformed_examples-00000-of-00001"
        write_tfrecords(target, records, gzip=False)
        examples.set_int_custom_property(f"{split}_tokens", sum(counts))
    return examples


def run_packer(home, examples, model, **options):
    tokenizer, rows = Tokenizer(), PackedRows()
    tokenizer.uri, rows.uri = str(home), str(home / "rows")
    (home / "tokenizer.model").write_bytes(model)
    component = Packer(
        examples=Channel(type=standard_artifacts.Examples),
        tokenizer=Channel(type=Tokenizer),
        job=PackJob(sequence_length=LENGTH, vocab_size=VOCAB, **options),
    )
    PackerExecutor(PackerExecutor.Context(beam_pipeline_args=beam_arguments())).Do(
        {"examples": [examples], "tokenizer": [tokenizer]},
        {"packed_rows": [rows]},
        dict(component.exec_properties),
    )
    return rows.uri


def test_the_step_finds_the_buckets_on_the_training_split_and_weighs_no_other(
    tmp_path, sentencepiece_model
):
    documents = made(900)
    uri = run_packer(
        tmp_path, transformed(tmp_path, documents), sentencepiece_model,
        shards=2, quality_weighting=1.5,
    )  # fmt: skip
    train, held_out = (read_packed_manifest(uri, split) for split in ("train", "eval"))
    assert train.quality_weighting == 1.5
    assert not held_out.has_weights
    assert "by_bucket" not in held_out.to_json()
    expected = buckets_of(documents, tokens_of_bucket=MIN_BUCKET_ROWS * LENGTH * 2)
    found = {}
    for bucket in train.by_bucket:
        found.setdefault(bucket.source, []).append((bucket.lowest_score, bucket.mean_score))
    assert found == {
        source: [(b.lowest_score, b.mean_score) for b in of_source]
        for source, of_source in expected.items()
    }
    assert {len(of_source) for of_source in found.values()} == {MAX_BUCKETS}


def test_documents_without_a_score_are_an_error_that_says_what_to_do(tmp_path, sentencepiece_model):
    examples = transformed(tmp_path, made(40), scored=False)
    with pytest.raises(TokenmillError, match=r"doc-.* came without a quality_score") as caught:
        run_packer(tmp_path, examples, sentencepiece_model, quality_weighting=1.0)
    assert "outputs of Transform" in caught.value.hint


def test_a_study_that_weighs_sources_by_their_rows_reads_as_a_run_does(bucketed):
    """Proxy runs give the rows' manifest source weights of their own."""
    manifest = read_packed_manifest(bucketed, "train")
    natural = Counter()
    for shard in manifest.shards:
        natural.update(dict(shard.rows_by_source))
    weighed = manifest.model_copy(update={"source_weights": dict(natural)})
    samples = np.arange(10_000)
    for mine, other in zip(
        Mixture.of(manifest).draws(samples), Mixture.of(weighed).draws(samples), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    only = manifest.model_copy(update={"source_weights": {"wiki": 1.0, "code": 0, "news": 0}})
    read = Mixture.of(only).rows_drawn(5000)
    assert {name for name, rows in read.items() if rows} == {
        b.name for b in manifest.by_bucket if b.source == "wiki"
    }
