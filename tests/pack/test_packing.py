import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.pack.packing import Layout, best_fit, pack, pack_pieces
from components.pack.records import densify

BOS, EOS = 2, 3
lengths_and_capacity = st.integers(1, 24).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=60), st.just(capacity))
)
corpora = st.lists(st.integers(0, 70), max_size=25)
sequence_lengths = st.integers(1, 32)


def documents_of(token_counts):
    """Documents whose tokens are all different, so that a pair tells where it came from."""
    numbers = np.arange(4, 4 + sum(token_counts), dtype=np.int32)
    return np.split(numbers, np.cumsum(token_counts)[:-1]) if token_counts else []


def questions_of_documents(documents):
    questions = Counter()
    for document in documents:
        framed = [BOS, *document.tolist(), EOS]
        questions.update(itertools.pairwise(framed))
    return questions


def questions_of_rows(batch):
    asked = batch.loss_weights > 0
    return Counter(zip(batch.inputs[asked].tolist(), batch.targets[asked].tolist(), strict=True))


@settings(deadline=None)
@given(corpora, sequence_lengths)
def test_every_question_of_every_document_is_asked_exactly_once(token_counts, sequence_length):
    documents = documents_of(token_counts)
    batch = densify(pack(documents, sequence_length), sequence_length)
    assert questions_of_rows(batch) == questions_of_documents(documents)


@settings(deadline=None)
@given(corpora, sequence_lengths)
def test_slots_are_filled_or_padding_and_rows_are_never_overfull(token_counts, sequence_length):
    rows = pack(documents_of(token_counts), sequence_length)
    filled = sum(count + 1 for count in token_counts)
    for row in rows:
        assert 0 < row.segment_lengths.sum() == len(row.inputs) <= sequence_length
        assert min(row.segment_lengths) > 0
        assert len(row.last_targets) == len(row.segment_lengths)
    batch = densify(rows, sequence_length)
    padding = int((batch.segment_ids == 0).sum())
    assert batch.segment_ids.size == len(rows) * sequence_length == filled + padding
    assert batch.loss_weights.sum() == filled


@settings(deadline=None)
@given(corpora, sequence_lengths)
def test_a_segment_is_one_run_of_one_document(token_counts, sequence_length):
    documents = documents_of(token_counts)
    owner = {int(token): i for i, d in enumerate(documents) for token in d}
    batch = densify(pack(documents, sequence_length), sequence_length)
    for r in range(len(batch.inputs)):
        for segment in range(1, batch.segment_ids[r].max() + 1):
            (where,) = np.nonzero(batch.segment_ids[r] == segment)
            assert where[-1] - where[0] + 1 == len(where)
            inputs, targets = batch.inputs[r, where], batch.targets[r, where]
            np.testing.assert_array_equal(targets[:-1], inputs[1:])
            np.testing.assert_array_equal(batch.positions[r, where], np.arange(len(where)))
            own_tokens = [*inputs[inputs > EOS], *targets[targets > EOS]]
            assert len({owner[int(token)] for token in own_tokens}) <= 1
            assert BOS not in inputs[1:]
            assert BOS not in targets
            assert EOS not in inputs


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=12), st.integers(4, 40))
def test_the_end_of_a_document_never_predicts_the_next_document(token_counts, sequence_length):
    documents = documents_of(token_counts)
    first_tokens = {int(d[0]) for d in documents}
    batch = densify(pack(documents, sequence_length), sequence_length)
    for token, target in questions_of_rows(batch):
        if target in first_tokens:
            assert token == BOS


def test_a_long_document_is_cut_into_whole_questions():
    pieces = pack_pieces(np.array([10]), Layout(4))
    assert list(zip(pieces.start, pieces.length, strict=True)) == [(0, 4), (4, 4), (8, 2)]
    batch = densify(pack(documents_of([9]), 4), 4)
    assert batch.inputs.tolist() == [[2, 4, 5, 6], [7, 8, 9, 10], [11, 12, 0, 0]]
    assert batch.targets.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 3, 0, 0]]


def test_a_document_that_just_fits_takes_one_row():
    assert len(pack(documents_of([7]), 8)) == 1
    assert len(pack(documents_of([8]), 8)) == 2


def reference_best_fit_decreasing(lengths, capacity):
    """Straight from the textbook, O(n x bins); returns the fill of each bin."""
    fills = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, fill in enumerate(fills) if fill + length <= capacity]
        if fitting:
            fills[max(fitting, key=lambda i: fills[i])] += length
        else:
            fills.append(length)
    return fills


@settings(deadline=None)
@given(lengths_and_capacity)
def test_best_fit_fills_bins_as_the_textbook_does(case):
    lengths, capacity = case
    bins = best_fit(lengths, capacity)
    fills = [sum(lengths[i] for i in items) for items in bins]
    assert sorted(fills) == sorted(reference_best_fit_decreasing(lengths, capacity))


@settings(deadline=None)
@given(lengths_and_capacity)
def test_best_fit_places_every_item_once_within_capacity(case):
    lengths, capacity = case
    bins = best_fit(lengths, capacity)
    assert sorted(i for items in bins for i in items) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in items) <= capacity for items in bins)


@settings(deadline=None)
@given(corpora, sequence_lengths)
def test_packing_is_deterministic(token_counts, sequence_length):
    once = densify(pack(documents_of(token_counts), sequence_length), sequence_length)
    again = densify(pack(documents_of(token_counts), sequence_length), sequence_length)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_there_is_hardly_any_padding_on_documents_of_mixed_lengths():
    lengths = np.random.default_rng(7).lognormal(5.0, 1.0, 2000).astype(int) + 1
    rows = pack(documents_of(lengths.tolist()), 256)
    padding = len(rows) * 256 - int((lengths + 1).sum())
    assert padding < 0.01 * len(rows) * 256
