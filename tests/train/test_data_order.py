import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.pack.rows import PackedSplit
from components.pack.transforms import (
    PackSettings,
    TokenisedDocument,
    pack_shard,
    write_manifest,
)
from components.train.data import evaluation_batches, rows_of_step, training_batches

LENGTH = 16


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Ten rows in two shards, each with one document that fills it."""
    uri = tmp_path_factory.mktemp("rows")
    directory, pack_settings = str(uri / "Split-train"), PackSettings(LENGTH, 300, 2)
    rng = np.random.default_rng(0)
    documents = [
        TokenisedDocument(b"%02d" % i, b"s", 9, rng.integers(4, 300, 15).astype(np.int32))
        for i in range(10)
    ]
    shards = [
        pack_shard((0, [documents[:6]]), directory, pack_settings),
        pack_shard((1, [documents[6:]]), directory, pack_settings),
    ]
    write_manifest(shards, directory, pack_settings)
    return PackedSplit(str(uri), "train")


def order(rows, batch, seed, epochs):
    """Row numbers of so many epochs, one row of the result an epoch."""
    steps = math.ceil(epochs * rows / batch)
    numbers = np.concatenate([rows_of_step(s, batch, rows, seed) for s in range(steps)])
    return numbers[: epochs * rows].reshape(epochs, rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**31 - 1))
def test_every_epoch_visits_each_row_once(rows, batch, seed):
    for epoch in order(rows, batch, seed, epochs=3):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(rows))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [*order(50, 8, seed=1, epochs=3), *order(50, 8, seed=2, epochs=3)]
    assert len({tuple(o) for o in orders}) == 6
    assert not any(np.array_equal(o, np.arange(50)) for o in orders)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 16), st.integers(1, 16))
def test_the_order_of_rows_does_not_depend_on_the_batch_size(rows, batch, other_batch):
    np.testing.assert_array_equal(order(rows, batch, 5, 2), order(rows, other_batch, 5, 2))


def test_a_step_reads_the_same_rows_whenever_it_is_asked():
    forwards = [rows_of_step(s, 7, 40, 3) for s in range(12)]
    backwards = [rows_of_step(s, 7, 40, 3) for s in reversed(range(12))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def numpy_batches(dataset):
    return list(dataset.as_numpy_iterator())


def assert_same_batch(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def test_training_batches_are_the_rows_of_their_steps(split):
    batches = numpy_batches(training_batches(split, 4, steps=6, seed=9))
    assert len(batches) == 6
    for step, batch in enumerate(batches):
        assert_same_batch(batch, split.read(rows_of_step(step, 4, split.rows, 9)))


def test_training_goes_on_where_it_stopped(split):
    whole = numpy_batches(training_batches(split, 4, steps=6, seed=9))
    rest = numpy_batches(training_batches(split, 4, steps=6, seed=9, first_step=4))
    assert len(rest) == 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert_same_batch(a, b)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10, 16])
def test_evaluation_reads_each_row_once_and_fills_up_with_nothing(split, batch_size):
    batches = numpy_batches(evaluation_batches(split, batch_size))
    assert all(len(b.inputs) == batch_size for b in batches)
    joined = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    expected = split.read(np.arange(split.rows))
    for array, rows in zip(joined, expected, strict=True):
        np.testing.assert_array_equal(array[: split.rows], rows)
        assert not array[split.rows :].any()
    assert len(joined[0]) - split.rows < batch_size
