import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import TokenizedDocument, in_columns
from made_manifest import packed_manifest

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from components.train.data import (
    Share,
    distribute,
    evaluation_batches,
    reading,
    training_batches,
)
from tokenmill.errors import TokenmillError
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import RowOrder
from tokenmill.rows.token_flags import CONTROL

LENGTH, VOCAB = 16, 300
FLAGS = np.where(np.arange(VOCAB) < 16, CONTROL, 0).astype(np.uint8)


def write_split(uri, sources, **options):
    """Rows in two shards, each with one document that fills it; `sources` gives theirs."""
    directory, pack_settings = (
        str(uri / "Split-train"),
        PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=2, **options),
    )
    rng = np.random.default_rng(0)
    tokens = LENGTH - 2 if options.get("task") == "masked-lm" else LENGTH - 1
    documents = [
        TokenizedDocument(b"%02d" % i, source, 9, rng.integers(16, VOCAB, tokens, np.int32))
        for i, source in enumerate(sources)
    ]
    parts = [documents[: len(documents) * 3 // 5], documents[len(documents) * 3 // 5 :]]
    shards = [
        pack_shard((i, [in_columns(part)]), directory, pack_settings, FLAGS)
        for i, part in enumerate(parts)
    ]
    write_manifest(shards, directory, pack_settings, FLAGS)
    return PackedSplit(str(uri), "train")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("rows"), [b"s"] * 10)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("rows"), [b"s"] * 10, task="masked-lm")


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    """Twenty rows of a, ten of b, in both shards; b is to be read as often."""
    sources = [b"b" if i % 3 == 0 else b"a" for i in range(30)]
    uri = tmp_path_factory.mktemp("rows")
    weights = {"a": 1.0, "b": 1.0}
    return write_split(uri, sources, source_weights=weights, max_repetitions=3)


def plain_split(rows):
    """The order needs the manifest only."""
    return SimpleNamespace(manifest=packed_manifest(rows=rows))


def order(rows, batch, seed, epochs):
    """Row numbers of so many epochs, one row of the result an epoch."""
    steps = math.ceil(epochs * rows / batch)
    row_order = RowOrder(plain_split(rows), batch, seed)
    numbers = np.concatenate([row_order.rows_of_step(s)[0] for s in range(steps)])
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
    forwards = [RowOrder(plain_split(40), 7, 3).rows_of_step(s)[0] for s in range(12)]
    row_order = RowOrder(plain_split(40), 7, 3)
    backwards = [row_order.rows_of_step(s)[0] for s in reversed(range(12))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_a_mixture_reads_each_row_of_a_source_once_in_each_of_its_epochs(weighted):
    row_order = RowOrder(weighted, 10, seed=4)
    numbers, epochs = (
        np.concatenate(part) for part in zip(*map(row_order.rows_of_step, range(9)), strict=True)
    )
    first_ids = weighted.read(np.arange(weighted.rows)).inputs
    source_of = np.array([s for n in (18, 12) for s in "a" * (n - n // 3) + "b" * (n // 3)])
    assert len(first_ids) == len(source_of) == 30
    for source, rows in (("a", 20), ("b", 10)):
        mine = source_of[numbers] == source
        for epoch in range(3):
            seen = numbers[mine & (epochs == epoch)]
            assert len(seen) == rows == len(set(seen))
        assert epochs[mine].max() == 2  # the limit
    # As often while both have rows left: b is used up after 60 rows.
    assert abs((source_of[numbers[:60]] == "b").sum() - 30) <= 1
    with pytest.raises(IndexError, match="max_repetitions leaves 90 rows"):
        row_order.rows_of_step(9)


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
        assert_same_batch(batch, split.read(RowOrder(split, 4, 9).rows_of_step(step)[0]))


@pytest.mark.parametrize("name", ["split", "masked", "weighted"])
def test_training_goes_on_where_it_stopped(name, request):
    packed = request.getfixturevalue(name)
    whole = numpy_batches(training_batches(packed, 4, steps=6, seed=9))
    rest = numpy_batches(training_batches(packed, 4, steps=6, seed=9, first_step=4))
    assert len(rest) == 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert_same_batch(a, b)


@pytest.mark.parametrize("name", ["split", "masked", "weighted"])
@pytest.mark.parametrize("workers", [2, 4])
def test_the_workers_together_read_what_one_alone_reads(name, workers, request):
    packed = request.getfixturevalue(name)

    def together(make):
        alone = numpy_batches(make(Share()))
        # Each worker has two replicas: two elements a step.
        parts = [numpy_batches(make(Share(2 * w, 2, 2 * workers))) for w in range(workers)]
        for step, batch in enumerate(alone):
            mine = [parts[w][2 * step + r] for w in range(workers) for r in range(2)]
            joined = [np.concatenate(arrays) for arrays in zip(*mine, strict=True)]
            assert_same_batch(joined, batch)
        assert all(len(part) == 2 * len(alone) for part in parts)

    together(lambda share: training_batches(packed, 8, 5, seed=3, share=share))
    together(lambda share: evaluation_batches(packed, 8, share))


def test_a_worker_reads_no_rows_but_its_own(split, monkeypatch):
    read = []
    real_read = PackedSplit.read

    def counted(self, numbers, width):
        read.extend(numbers.tolist())
        return real_read(self, numbers, width)

    monkeypatch.setattr(PackedSplit, "read", counted)
    numpy_batches(training_batches(split, 4, steps=5, seed=3, share=Share(1, 1, 2)))
    assert len(read) == 5 * 2


def test_a_strategy_of_two_replicas_gets_the_batches_in_two_parts(split):
    devices = tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([devices[0].name])
    batches = distribute(strategy, lambda share: training_batches(split, 4, 3, 9, share=share))
    expected = numpy_batches(training_batches(split, 4, 3, 9))
    for got, batch in zip(batches, expected, strict=True):
        assert_same_batch([x.numpy() for x in got], batch)


def test_a_batch_that_cannot_be_divided_is_refused(split):
    with pytest.raises(TokenmillError, match="global_batch_size = 6 cannot be divided by 4"):
        training_batches(split, 6, 1, 0, share=Share(0, 1, 4))


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


def test_masks_are_fresh_in_every_epoch_and_fixed_for_evaluation(masked):
    epochs = numpy_batches(training_batches(masked, masked.rows, steps=3, seed=9))
    hidden = []
    for batch in epochs:
        back = np.argsort(batch.targets[:, 1])  # rows in one order, whatever the epoch's
        hidden.append(batch.loss_weights[back])
        assert 0 < batch.loss_weights.sum() < batch.loss_weights.size / 2
    assert not np.array_equal(hidden[0], hidden[1])
    assert not np.array_equal(hidden[1], hidden[2])
    once, again = (numpy_batches(evaluation_batches(masked, 5)) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        assert_same_batch(a, b)


def test_a_damaged_row_is_named_when_batches_are_read(tmp_path):
    split = write_split(tmp_path, [b"s"] * 10)
    path = tmp_path / "Split-train" / "rows-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with (
        pytest.raises(TokenmillError, match=r"rows-00001\.tfrecord: row 3 at byte"),
        reading(split),
    ):
        numpy_batches(evaluation_batches(split, 5))
