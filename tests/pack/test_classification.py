from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import TokenmillError
from components.pack.classification import bucketed_batches, frame_examples, widths

cases = st.lists(
    st.tuples(st.integers(0, 100), st.sampled_from([b"good", b"bad", b"", None])), max_size=40
)


def make(case):
    rng = np.random.default_rng(len(case))
    return [rng.integers(16, 300, n) for n, _ in case], [label for _, label in case]


@settings(deadline=None)
@given(cases, st.integers(8, 80), st.integers(1, 9), st.integers(0, 3))
def test_each_example_comes_once_an_epoch_with_its_label(case, length, batch_size, epoch):
    documents, labels = make(case)
    examples = frame_examples(documents, labels, length)
    expected = Counter(
        ((5, *d[: length - 2].tolist(), 6), label)
        for d, label in zip(documents, labels, strict=True)
        if len(d) and label
    )
    seen = Counter()
    for batch in bucketed_batches(examples, length, batch_size, 1, epoch):
        assert batch.inputs.shape == (batch_size, batch.inputs.shape[1])
        assert batch.inputs.shape[1] in widths(length)
        for row in range(batch_size):
            used = batch.segment_ids[row] == 1
            assert bool(batch.weights[row]) == used.any()
            np.testing.assert_array_equal(batch.positions[row, used], np.arange(used.sum()))
            assert not batch.inputs[row, ~used].any()
            if used.any():
                name = examples.label_names[batch.labels[row]]
                seen[(tuple(batch.inputs[row, used].tolist()), name)] += 1
                narrower = [w for w in widths(length) if w < batch.inputs.shape[1]]
                assert all(used.sum() > w for w in narrower)
    assert seen == expected


@settings(deadline=None)
@given(cases, st.integers(8, 80))
def test_every_document_and_token_is_accounted_for(case, length):
    documents, labels = make(case)
    examples = frame_examples(documents, labels, length)
    assert len(documents) == len(examples.lengths) + sum(examples.dropped.values())
    assert examples.dropped["empty"] == sum(not len(d) for d in documents)
    kept = sum(len(d) for d, label in zip(documents, labels, strict=True) if label)
    assert examples.tokens == kept
    assert examples.tokens == (examples.lengths - 2).sum() + examples.truncated_tokens


def test_the_order_depends_on_seed_and_epoch():
    documents = [np.full(5, 16 + i) for i in range(50)]
    examples = frame_examples(documents, [b"x"] * 50, 32)

    def order(seed, epoch):
        return [b.inputs[:, 1].tolist() for b in bucketed_batches(examples, 32, 5, seed, epoch)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_a_label_that_training_does_not_know_is_refused():
    with pytest.raises(TokenmillError, match="label 'ugly' is none of training's 2"):
        frame_examples([np.array([20])], [b"ugly"], 16, label_names=[b"bad", b"good"])
