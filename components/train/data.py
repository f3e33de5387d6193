"""Feeds packed rows to the training loop.

Which rows a step reads is a pure function of (seed, step): a permutation of the rows for each
epoch, computed index by index. There is no shuffle buffer and no iterator state to save.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from components.pack.rows import Batch, PackedSplit


def rows_of_step(step: int, global_batch_size: int, rows: int, seed: int) -> np.ndarray:
    """Row numbers of a step, int64 [global_batch_size]; each epoch is a new permutation.

    Args:
        step: From 0.
        global_batch_size: Rows a step.
        rows: Rows of the split.
        seed: Seed of the order.
    """
    samples = np.arange(step * global_batch_size, (step + 1) * global_batch_size)
    epochs, indices = np.divmod(samples, rows)
    numbers = np.empty(global_batch_size, np.int64)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        numbers[mine] = tf.random.experimental.index_shuffle(
            tf.constant(indices[mine], tf.int64),
            seed=tf.constant([seed, epoch], tf.uint32),
            max_index=tf.constant(rows - 1, tf.int64),
        ).numpy()
    return numbers


def training_batches(
    split: PackedSplit, global_batch_size: int, steps: int, seed: int, first_step: int = 0
) -> tf.data.Dataset:
    """Batches of the steps first_step .. steps - 1, each a `Batch` of [global_batch_size, T]."""

    def batches():
        for step in range(first_step, steps):
            yield split.read(rows_of_step(step, global_batch_size, split.rows, seed))

    return _dataset(batches, global_batch_size, split.sequence_length)


def evaluation_batches(split: PackedSplit, global_batch_size: int) -> tf.data.Dataset:
    """All rows once, in order; the last batch is filled up with rows of weight 0."""

    def batches():
        for start in range(0, split.rows, global_batch_size):
            numbers = np.arange(start, min(start + global_batch_size, split.rows))
            missing = global_batch_size - len(numbers)
            yield Batch(*(np.pad(a, ((0, missing), (0, 0))) for a in split.read(numbers)))

    return _dataset(batches, global_batch_size, split.sequence_length)


def _dataset(batches: Callable, rows: int, sequence_length: int) -> tf.data.Dataset:
    ids = tf.TensorSpec([rows, sequence_length], tf.int32)
    weights = tf.TensorSpec([rows, sequence_length], tf.float32)
    dataset = tf.data.Dataset.from_generator(
        batches, output_signature=Batch(ids, ids, ids, ids, weights)
    )
    # The order is fixed by the generator; sharding by file does not apply to it.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).prefetch(4)
