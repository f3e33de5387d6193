"""Near duplicates: n-gram sets, proposals, clusters, and the whole against all pairs."""

import itertools
import pickle
import random
import time

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from components.curate.deduplicate import (
    CANDIDATE_SCHEMA,
    Edge,
    FindNearDuplicates,
    Rank,
    cluster,
    exact_copies,
    merge_partition,
    without,
)
from components.curate.near_duplicates import (
    NearDuplicateSettings,
    band_hashes,
    components,
    jaccard,
    propose_pairs,
    shingle,
)

SETTINGS = NearDuplicateSettings(min_jaccard=0.8, ngram_words=5, bands=14, rows=8)
WORDS = st.lists(st.sampled_from(["a", "b", "c", "D", "d"]), max_size=14).map(" ".join)


def ngrams_of(text, n=5):
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def similarity(a, b, n=5):
    one, other = ngrams_of(a, n), ngrams_of(b, n)
    return len(one & other) / len(one | other) if one | other else 0.0


def new_text(rng, words):
    return " ".join(rng.choices([f"w{i}" for i in range(5000)], k=words))


def edited(text, rng, places):
    """The text with some words replaced by new ones."""
    words = text.split()
    for place in places:
        words[place] = f"new{rng.getrandbits(60)}"
    return " ".join(words)


@given(st.lists(WORDS, max_size=6), st.integers(1, 5))
def test_similarity_is_that_of_python_sets(texts, n):
    shingles = shingle(texts, n)
    for i, text in enumerate(texts):
        mine = shingles.of(i)
        assert len(mine) == len(ngrams_of(text, n))
        assert (np.diff(mine.astype(object)) > 0).all()
    for i, j in itertools.product(range(len(texts)), repeat=2):
        assert jaccard(shingles.of(i), shingles.of(j)) == similarity(texts[i], texts[j], n)


def test_texts_shorter_than_an_ngram_are_like_nothing():
    shingles = shingle(["a b", "", "a b"], 5)
    assert jaccard(shingles.of(0), shingles.of(2)) == 0.0
    assert band_hashes(shingles, SETTINGS).shape == (3, 14)


def test_bands_propose_as_often_as_the_formula_says():
    """Pairs at s = 0.9 and at s = 0.5, each of other words: the share that agrees in a band."""
    rng = random.Random(3)
    for edits, low, high in ((2, 0.88, 0.93), (14, 0.45, 0.55)):
        proposed, similarities = [], []
        for _ in range(300):
            # An edit spoils 5 of n n-grams: s = (n - 5e) / (n + 5e).
            text = new_text(rng, 204)
            places = range(10, 10 + edits * 13, 13)
            pair = [text, edited(text, rng, places)]
            similarities.append(similarity(*pair))
            hashes = band_hashes(shingle(pair, 5), SETTINGS)
            proposed.append(bool((hashes[0] == hashes[1]).any()))
        assert low < np.mean(similarities) < high
        expected = np.mean([SETTINGS.proposal_probability(s) for s in similarities])
        deviation = (expected * (1 - expected) / len(proposed)) ** 0.5
        assert np.mean(proposed) == pytest.approx(expected, abs=4 * deviation + 0.005)


def test_formula():
    assert SETTINGS.proposal_probability(1.0) == 1.0
    assert SETTINGS.proposal_probability(0.0) == 0.0
    assert SETTINGS.proposal_probability(0.8) == pytest.approx(0.924, abs=0.001)
    assert SETTINGS.proposal_probability(0.9) == pytest.approx(0.9996, abs=0.0001)


def test_a_signature_is_the_same_alone_and_in_a_batch():
    rng = random.Random(1)
    texts = [new_text(rng, 50) for _ in range(20)]
    batch = band_hashes(shingle(texts, 5), SETTINGS)
    alone = [band_hashes(shingle([text], 5), SETTINGS)[0] for text in texts]
    assert np.array_equal(batch, alone)


# ---- proposals and components


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=40), st.randoms())
def test_proposals_connect_each_band_with_two_pairs_a_document_at_most(entries, rng):
    entries = sorted(set(entries))
    bands = {}
    for band, document in entries:
        bands.setdefault(band, set()).add(document)

    def propose():
        return propose_pairs(
            np.array([b for b, _ in entries], np.uint64),
            np.array([d * 7919 % 31 for _, d in entries], np.uint64),
            np.array([d for _, d in entries], np.int64),
        )

    pairs = propose()
    assert len(pairs) <= 2 * len(entries)
    assert all(first < second for first, second in pairs.tolist())
    found = components(map(tuple, pairs.tolist()))
    for documents in bands.values():
        if len(documents) > 1:
            assert len({found[d] for d in documents}) == 1
    for first, second in pairs.tolist():
        assert any({first, second} <= documents for documents in bands.values())
    rng.shuffle(entries)
    assert np.array_equal(propose(), pairs)


def test_a_hot_band_gives_pairs_in_proportion():
    count = 50_000
    started = time.perf_counter()
    pairs = propose_pairs(
        np.zeros(count, np.uint64),
        np.arange(count, dtype=np.uint64)[::-1],
        np.arange(count, dtype=np.int64),
    )
    assert count - 1 <= len(pairs) <= 2 * count
    assert len(set(components(map(tuple, pairs.tolist())).values())) == 1
    assert time.perf_counter() - started < 10


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15))
def test_components_join_over_any_number_of_hops(edges):
    naive = {d: {d} for edge in edges for d in edge}
    for first, second in edges:
        joined = naive[first] | naive[second]
        for document in joined:
            naive[document] = joined
    found = components(edges)
    assert set(found) == set(naive)
    for a, b in itertools.product(naive, repeat=2):
        assert (found[a] == found[b]) == (b in naive[a])


def test_the_best_of_a_cluster_stays_and_the_others_say_which():
    ranks = {
        1: Rank(True, -900, b"a", b""),
        2: Rank(False, -10, b"z", b""),  # held-out: stays, though short
        3: Rank(True, -10, b"b", b""),
        7: Rank(True, -5, b"d", b""),
        8: Rank(True, -6, b"e", b""),  # longer
    }
    edges = [
        Edge(a, ranks[a], b, ranks[b], s) for a, b, s in [(1, 2, 0.8), (2, 3, 0.9), (7, 8, 1.0)]
    ]
    expected = [(1, 0.8, b"z"), (3, 0.9, b"z"), (7, 1.0, b"e")]
    for order in itertools.permutations(edges):
        ((partition, dropped),) = cluster(list(order), SETTINGS)
        assert partition == 0
        assert [(d.place, d.value, d.kept_copy) for d in dropped] == expected
        assert {(d.reason, d.threshold) for d in dropped} == {("near_duplicate", 0.8)}
    assert list(cluster([], SETTINGS)) == []


# ---- the whole, in Beam


def partition_of(documents):
    """One sorted partition of (is_train, doc_id, text)."""
    rows = [(is_train, d, b"s", t.encode(), len(t)) for is_train, d, t in documents]
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(zip(*rows, strict=True), CANDIDATE_SCHEMA, strict=True)
    ]
    return merge_partition([pa.RecordBatch.from_arrays(arrays, schema=CANDIDATE_SCHEMA)])


def kept_ids(documents, near, partitions, path):
    """What FindNearDuplicates leaves of documents, dealt out over partitions."""
    parts = {
        p: partition_of(documents[p::partitions])
        for p in range(partitions)
        if documents[p::partitions]
    }
    options = PipelineOptions(["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    with beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | beam.Create(list(parts.items()))
            | FindNearDuplicates(near, partitions)
            | beam.combiners.ToList()
            | beam.Map(lambda found: path.write_bytes(pickle.dumps(dict(found))))
        )
    dropped = pickle.loads(path.read_bytes())
    kept = []
    for p, batch in parts.items():
        gone = {d.place for d in dropped.get(p, [])}
        kept += [d for i, d in enumerate(batch.column(1).to_pylist()) if i not in gone]
    return sorted(kept)


def brute_force(documents, min_jaccard):
    """Clusters from all pairs; of each the held-out, longest, first by id."""
    edges = [
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(documents), 2)
        if similarity(a[2], b[2]) >= min_jaccard
    ]
    labels = components(edges)
    clusters = {}
    for i, (is_train, doc_id, text) in enumerate(documents):
        label = labels.get(i, f"alone {i}")
        clusters.setdefault(label, []).append((is_train, -len(text), doc_id))
    return sorted(min(members)[2] for members in clusters.values())


def planted(rng, chains, hops, others):
    """Chains of documents that are near copies of their neighbours, not of their far kin."""
    texts = [new_text(rng, 60) for _ in range(others)]
    for _ in range(chains):
        text = new_text(rng, 120)
        texts.append(text)
        for hop in range(hops):
            text = edited(text, rng, [15 + 20 * hop % 90])
            texts.append(text)
    rng.shuffle(texts)
    return [(rng.random() < 0.8, b"%04d" % i, text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("partitions", [1, 7])
def test_same_as_all_pairs_on_chains_over_several_hops(tmp_path, partitions):
    rng = random.Random(11)
    documents = planted(rng, chains=12, hops=5, others=150)
    expected = brute_force(documents, 0.8)
    assert len(expected) == 150 + 12  # a chain is one cluster, though its ends are far apart
    assert kept_ids(documents, SETTINGS, partitions, tmp_path / "out") == expected


def test_pairs_below_the_threshold_stay(tmp_path):
    rng = random.Random(4)
    text = new_text(rng, 100)
    documents = [(True, b"1", text), (True, b"2", edited(text, rng, [20, 40, 60]))]
    s = similarity(text, documents[1][2])
    wide = NearDuplicateSettings(s, 5, bands=60, rows=2)  # proposes this pair for certain
    above = NearDuplicateSettings(float(np.nextafter(s, 1)), 5, bands=60, rows=2)
    assert len(kept_ids(documents, wide, 2, tmp_path / "a")) == 1
    assert len(kept_ids(documents, above, 2, tmp_path / "b")) == 2


def test_thousands_with_the_same_signature_are_one_cluster_in_seconds(tmp_path):
    """Texts that differ in a mark the n-gram sets do not see: every band is hot."""
    body = "the quick brown fox jumps over the lazy dog again and again"
    documents = [(True, b"%05d" % i, body + " " * i) for i in range(1_500)]
    started = time.perf_counter()
    assert kept_ids(documents, SETTINGS, 3, tmp_path / "out") == [b"01499"]  # the longest
    assert time.perf_counter() - started < 30


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"b"]), WORDS), min_size=1))
def test_exact_copies_keep_the_first_of_each_content(documents):
    batch = partition_of(documents)
    dropped = exact_copies(batch)
    contents = {" ".join(t.lower().split()) for *_, t in documents}
    kept = without(batch, dropped).to_pylist()
    assert sorted(" ".join(r["text"].decode().lower().split()) for r in kept) == sorted(contents)
    for row in kept:
        content = row["text"].decode().lower().split()
        best = min((s, d) for s, d, t in documents if t.lower().split() == content)
        assert (row["is_train"], row["doc_id"]) == best
    assert all(d.kept_copy in {row["doc_id"] for row in kept} for d in dropped)
