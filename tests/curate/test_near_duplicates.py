"""Near duplicates: n-gram sets, proposals, clusters, and the whole against all pairs."""

import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.curate.clusters import cluster
from components.curate.config import CurateConfig
from components.curate.deduplicate import (
    DroppedGroup,
    Edges,
    dropped_mask,
    exact_copies,
    is_dropped,
    join_dropped,
)
from components.curate.first_pass import CONTENT
from components.curate.near_duplicates import (
    band_hashes,
    components,
    jaccards,
    proposal_probability,
    propose_pairs,
    shingle,
)
from tokenmill.records.keys import content_key
from tokenmill.records.staging import PartWriter

SETTINGS = CurateConfig()
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
        (found,) = jaccards(shingles, np.array([[i, j]]))
        assert found == similarity(texts[i], texts[j], n)
    pairs = np.array(list(itertools.product(range(len(texts)), repeat=2)), np.int64).reshape(-1, 2)
    expected = [similarity(texts[i], texts[j], n) for i, j in pairs.tolist()]
    assert jaccards(shingles, pairs).tolist() == expected


def test_texts_shorter_than_an_ngram_are_like_nothing():
    shingles = shingle(["a b", "", "a b"], 5)
    assert jaccards(shingles, np.array([[0, 2]])).tolist() == [0.0]
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
        expected = np.mean([proposal_probability(s, SETTINGS) for s in similarities])
        deviation = (expected * (1 - expected) / len(proposed)) ** 0.5
        assert np.mean(proposed) == pytest.approx(expected, abs=4 * deviation + 0.005)


def test_formula():
    assert proposal_probability(1.0, SETTINGS) == 1.0
    assert proposal_probability(0.0, SETTINGS) == 0.0
    assert proposal_probability(0.8, SETTINGS) == pytest.approx(0.924, abs=0.001)
    assert proposal_probability(0.9, SETTINGS) == pytest.approx(0.9996, abs=0.0001)


def test_a_signature_is_the_same_alone_and_in_a_batch():
    rng = random.Random(1)
    texts = [new_text(rng, 50) for _ in range(20)]
    batch = band_hashes(shingle(texts, 5), SETTINGS)
    alone = [band_hashes(shingle([text], 5), SETTINGS)[0] for text in texts]
    assert np.array_equal(batch, alone)


# ---- proposals and components


def labels_of(pairs):
    """Document -> label."""
    documents, index, labels = components(np.array(pairs, np.int64).reshape(-1, 2))
    assert documents[index].tolist() == np.array(pairs).reshape(-1, 2).tolist()
    return dict(zip(documents.tolist(), labels.tolist(), strict=True))


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

    pairs, leaders = propose()
    assert len(pairs) <= 2 * len(entries)
    assert all(first < second for first, second in pairs.tolist())
    assert len(leaders) == len(pairs)
    found = labels_of(pairs)
    for documents in bands.values():
        if len(documents) > 1:
            assert len({found[d] for d in documents}) == 1
    for first, second in pairs.tolist():
        assert any({first, second} <= documents for documents in bands.values())
    rng.shuffle(entries)
    assert np.array_equal(propose()[0], pairs)


def test_a_hot_band_gives_pairs_in_proportion():
    count = 50_000
    started = time.process_time()
    pairs, leaders = propose_pairs(
        np.zeros(count, np.uint64),
        np.arange(count, dtype=np.uint64)[::-1],
        np.arange(count, dtype=np.int64),
    )
    assert count - 1 <= len(pairs) <= 2 * count
    assert set(leaders.tolist()) == {count - 1}  # the least key
    assert len(set(labels_of(pairs).values())) == 1
    assert time.process_time() - started < 10


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15))
def test_components_join_over_any_number_of_hops(edges):
    naive = {d: {d} for edge in edges for d in edge}
    for first, second in edges:
        joined = naive[first] | naive[second]
        for document in joined:
            naive[document] = joined
    found = labels_of(edges)
    assert set(found) == set(naive)
    for a, b in itertools.product(naive, repeat=2):
        assert (found[a] == found[b]) == (b in naive[a])


def staging_of(directory, documents):
    """The parts of (is_train, doc_id, text), and the reference of each id."""
    parts, order = [], []
    for split in ("eval", "train"):
        mine = [d for d in documents if d[0] == (split == "train")]
        if mine:
            writer = PartWriter(str(directory / split), split, shards=3)
            ids, texts = [d[1] for d in mine], [d[2].encode() for d in mine]
            sizes = [len(text) for text in texts]
            keys = np.array([np.frombuffer(content_key(text), np.uint64) for text in texts])
            writer.append(ids, [b"s"] * len(mine), texts, sizes, sizes, keys=keys)
            writer.add_hashes(CONTENT, keys[:, 0], np.arange(len(mine)))
            parts.append(writer.close())
            order += ids
    return parts, {doc_id: i for i, doc_id in enumerate(order)}


def test_the_best_of_a_cluster_stays_and_the_others_say_which(tmp_path):
    documents = [
        (True, b"a", "a" * 900),
        (False, b"z", "z" * 10),  # held-out: stays, though short
        (True, b"b", "b" * 10),
        (True, b"d", "d" * 5),
        (True, b"e", "e" * 6),  # longer
    ]
    parts, at = staging_of(tmp_path, documents)
    edges = [
        Edges(np.array([sorted((at[a], at[b]))]), np.array([s]))
        for a, b, s in [(b"a", b"z", 0.8), (b"z", b"b", 0.9), (b"d", b"e", 1.0)]
    ]
    expected = {(at[b"a"], 0.8, at[b"z"]), (at[b"b"], 0.9, at[b"z"]), (at[b"d"], 1.0, at[b"e"])}
    for order in itertools.permutations(edges):
        (dropped,) = cluster(list(order), parts, SETTINGS)
        columns = (dropped.references, dropped.values, dropped.kept)
        assert set(zip(*(c.tolist() for c in columns), strict=True)) == expected
        assert (dropped.reason, dropped.threshold) == ("near_duplicate", 0.8)
    assert cluster([], parts, SETTINGS) == []


DROPPED = st.lists(
    st.tuples(st.sampled_from(["exact", "near"]), st.sampled_from([0.5, 1.0]), st.integers(0, 60)),
    unique_by=lambda item: item[2],
)


@given(DROPPED, st.integers(1, 5), st.integers(0, 60), st.integers(0, 60))
def test_what_is_dropped_is_the_same_however_it_is_grouped(items, group, first, count):
    groups = [
        DroppedGroup(reason, np.array([i]), np.array([i / 2]), threshold, np.array([i - 1]))
        for reason, threshold, i in items
    ]
    lists = [groups[i : i + group] for i in range(0, len(groups), group)]
    joined = join_dropped([join_dropped(lists[::2]), join_dropped(lists[1::2])])
    found = {
        (d.reason, d.threshold, *values)
        for d in joined
        for values in zip(d.references.tolist(), d.values.tolist(), d.kept.tolist(), strict=True)
    }
    assert found == {(reason, threshold, i, i / 2, i - 1) for reason, threshold, i in items}
    assert len({(d.reason, d.threshold) for d in joined}) == len(joined)
    gone = {i for *_, i in items}
    span = np.arange(first, first + count)
    expected = [i in gone for i in span.tolist()]
    assert dropped_mask(joined, first, count).tolist() == expected
    assert is_dropped(joined, span[::-1]).tolist() == expected[::-1]


# ---- the whole, in Beam


def near(min_jaccard):
    """A configuration that proposes every pair of this similarity for certain."""
    keys = {"min_jaccard": min_jaccard, "bands": 60, "rows": 2}
    return CurateConfig(**{f"near_duplicate_{key}": value for key, value in keys.items()})


def kept_ids(curate, documents, config, partitions):
    """What is left of documents of (is_train, doc_id, text)."""
    rows = [("train" if t else "eval", d, b"s", text.encode()) for t, d, text in documents]
    changed = {
        **{k: v for k, v in config.model_dump().items() if k.startswith("near_duplicate_")},
        **{"exact_duplicates": "keep", "near_duplicates": "drop", "partitions": partitions},
    }
    result = curate(rows, curate.settings(**changed), size=max(1, len(rows) // partitions))
    return sorted(result.ids("train") + result.ids("eval"))


def brute_force(documents, min_jaccard):
    """Clusters from all pairs; of each the held-out, longest, first by id."""
    edges = [
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(documents), 2)
        if similarity(a[2], b[2]) >= min_jaccard
    ]
    labels = labels_of(edges)
    clusters = {}
    for i, (is_train, doc_id, text) in enumerate(documents):
        label = labels.get(i, f"alone {i}")
        clusters.setdefault(label, []).append((is_train, -len(text), doc_id))
    return sorted(min(members)[2] for members in clusters.values())


def planted(rng, chains, hops, others):
    """Chains of documents that are near copies of their neighbors, not of their far kin."""
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
def test_same_as_all_pairs_on_chains_over_several_hops(curate, partitions):
    rng = random.Random(11)
    documents = planted(rng, chains=12, hops=5, others=150)
    expected = brute_force(documents, 0.8)
    assert len(expected) == 150 + 12  # a chain is one cluster, though its ends are far apart
    assert kept_ids(curate, documents, SETTINGS, partitions) == expected


def test_pairs_below_the_threshold_stay(curate):
    rng = random.Random(4)
    text = new_text(rng, 100)
    documents = [(True, b"1", text), (True, b"2", edited(text, rng, [20, 40, 60]))]
    s = similarity(text, documents[1][2])
    wide = near(s)
    above = near(float(np.nextafter(s, 1)))
    assert len(kept_ids(curate, documents, wide, 2)) == 1
    assert len(kept_ids(curate, documents, above, 2)) == 2


def test_thousands_with_the_same_signature_are_one_cluster_in_seconds(curate):
    """Texts that differ in blanks, which the n-gram sets do not see: every band is hot.

    In seconds of a core: others may use the machine, too.
    """
    words = "the quick brown fox jumps over the lazy dog again and again"
    documents = [
        (
            True,
            b"%05d" % i,
            "".join(f"{w}{' ' * (1 + (i >> k & 1))}" for k, w in enumerate(words.split())),
        )
        for i in range(1_500)
    ]
    started = time.process_time()
    longest = b"%05d" % 0b01111111111
    assert kept_ids(curate, documents, SETTINGS, 3) == [longest]
    assert time.process_time() - started < 30


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"b"]), WORDS), min_size=1))
def test_exact_copies_keep_the_first_of_each_content(tmp_path, documents):
    parts, _ = staging_of(tmp_path, documents)
    ordered = sorted(documents, key=lambda d: d[0])
    for hash_ranges in (1, 3):
        dropped = [d for i in range(hash_ranges) for d in exact_copies(i, parts, hash_ranges)]
        gone = {r for d in dropped for r in d.references.tolist()}
        kept = [d for i, d in enumerate(ordered) if i not in gone]
        contents = {" ".join(t.lower().split()) for *_, t in documents}
        assert sorted(" ".join(t.lower().split()) for *_, t in kept) == sorted(contents)
        for is_train, doc_id, text in kept:
            content = text.lower().split()
            best = min((s, d) for s, d, t in documents if t.lower().split() == content)
            assert (is_train, doc_id) == best
        assert all(k not in gone for d in dropped for k in d.kept.tolist())
