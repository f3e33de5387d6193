import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import pack

from components.pack.packing import best_fit, build_rows, pack_parts
from tokenmill.rows.arrays import Layout
from tokenmill.rows.codec import densify

BOS, EOS, CLS, SEP = 2, 3, 5, 6
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
    parts = pack_parts(np.array([10]), Layout(4))
    assert list(zip(parts.start, parts.length, strict=True)) == [(0, 4), (4, 4), (8, 2)]
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


layouts = st.builds(Layout, st.integers(8, 40), st.booleans(), st.integers(0, 4))


def pack_layout(token_counts, layout, ranks=None):
    counts = np.array(token_counts, np.int64)
    items = counts if layout.framed else counts + (counts > 0)
    return items, pack_parts(items, layout, ranks)


@settings(deadline=None)
@given(corpora, layouts, st.integers(0, 3))
def test_every_item_is_packed_once_whatever_the_layout(token_counts, layout, seed):
    ranks = np.random.default_rng(seed).integers(0, 5, sum(token_counts)).astype(np.uint8)
    items, parts = pack_layout(token_counts, layout, ranks)
    for document, count in enumerate(items.tolist()):
        mine = parts.document == document
        order = np.argsort(parts.start[mine])
        starts, lengths = parts.start[mine][order], parts.length[mine][order]
        ends = np.cumsum(lengths)
        np.testing.assert_array_equal(starts, ends - lengths)
        assert lengths.sum() == count
        assert lengths.min(initial=1) > 0
    np.testing.assert_array_equal(parts.context, np.minimum(parts.start, layout.overlap))
    sizes = parts.length + parts.context + layout.frame_slots
    fills = np.bincount(parts.row, weights=sizes)
    assert len(fills) == 0 or (fills.min() > 0 and fills.max() <= layout.sequence_length)
    assert (np.diff(parts.row) >= 0).all()


@settings(deadline=None)
@given(corpora, st.integers(8, 32), st.integers(1, 4))
def test_context_repeats_the_tokens_before_without_a_loss(token_counts, sequence_length, overlap):
    documents = documents_of(token_counts)
    tokens = np.concatenate([np.zeros(0, np.int32), *documents])
    layout = Layout(sequence_length, overlap=overlap)
    _, parts = pack_layout(token_counts, layout)
    batch = densify(
        build_rows(parts, tokens, np.array(token_counts, np.int64), layout), sequence_length
    )
    nonempty = [d for d in documents if len(d)]
    assert questions_of_rows(batch) == questions_of_documents(nonempty)
    silent = (batch.loss_weights == 0) & (batch.segment_ids > 0)
    assert silent.sum() == parts.context.sum()
    questions = set(questions_of_documents(nonempty))
    for pair in zip(batch.inputs[silent].tolist(), batch.targets[silent].tolist(), strict=True):
        assert pair in questions  # it is the same document that goes on


@settings(deadline=None)
@given(corpora, st.integers(8, 32), st.integers(0, 3))
def test_framed_pieces_hold_every_token_once_between_cls_and_sep(token_counts, length, overlap):
    documents = documents_of([n + 16 for n in token_counts])
    documents = [d + 16 for d in documents]
    tokens = np.concatenate([np.zeros(0, np.int32), *documents])
    counts = np.array([len(d) for d in documents], np.int64)
    layout = Layout(length, framed=True, overlap=overlap)
    batch = densify(build_rows(pack_parts(counts, layout), tokens, counts, layout), length)
    asked = batch.targets[batch.loss_weights > 0]
    assert sorted(asked.tolist()) == sorted(tokens.tolist())
    for row in range(len(batch.inputs)):
        for segment in range(1, batch.segment_ids[row].max() + 1):
            ids = batch.inputs[row, batch.segment_ids[row] == segment]
            assert (ids[0], ids[-1]) == (CLS, SEP)
            np.testing.assert_array_equal(np.diff(ids[1:-1]), 1)


def test_documents_are_cut_at_the_best_place_that_leaves_no_gap():
    # A document of 40 tokens and rows of 32: an 8 and a 4 wait for a place.
    ranks = np.zeros(40 + 7 + 3, np.uint8)
    ranks[[21, 25, 28]] = 3, 2, 4  # after 23, 27, 30 questions: 9, 5, 2 slots that none fits
    counts = np.array([40, 7, 3])

    def first_cut(parts):
        return min(parts.start[(parts.document == 0) & (parts.start > 0)])

    assert first_cut(pack_parts(counts + 1, Layout(32), ranks)) == 32
    ranks[[22, 26]] = 3, 2  # 24 and 28 questions leave 8 and 4
    parts = pack_parts(counts + 1, Layout(32), ranks)
    assert first_cut(parts) == 24
    assert len(set(parts.row[(parts.start == 0) & (parts.document < 2)])) == 1


def test_rows_are_filled_to_99_5_percent_on_documents_of_mixed_lengths():
    counts = np.random.default_rng(7).lognormal(5.0, 1.0, 4000).astype(np.int64) + 1
    ranks = np.random.default_rng(8).choice(5, counts.sum(), p=[0.5, 0.4, 0.04, 0.05, 0.01])
    for layout in (Layout(256), Layout(512), Layout(1024)):
        parts = pack_parts(counts + 1, layout, ranks.astype(np.uint8))
        slots = (parts.row[-1] + 1) * layout.sequence_length
        assert parts.length.sum() / slots >= 0.995


def test_a_document_of_15_million_tokens_is_packed_in_seconds():
    counts = np.array([15_000_000, 3])
    tokens = np.arange(15_000_003, dtype=np.int32) % 200 + 16
    layout = Layout(1024, overlap=64)
    parts = pack_parts(counts + 1, layout, np.ones(len(tokens), np.uint8))
    rows = build_rows(parts, tokens, counts, layout)
    assert parts.length.sum() == counts.sum() + 2
    assert len(rows.inputs) == parts.length.sum() + parts.context.sum()


@settings(deadline=None)
@given(corpora, st.integers(8, 40), st.booleans())
def test_fixed_cuts_are_where_a_row_is_full_and_nowhere_else(token_counts, length, framed):
    layout = Layout(length, framed, fixed_cuts=True)
    items, parts = pack_layout(token_counts, layout, np.full(sum(token_counts), 3, np.uint8))
    assert (parts.start % layout.room(0) == 0).all()
    assert parts.length.sum() == items.sum()
