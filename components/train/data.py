"""Feeds packed rows to the training loop.

Which rows a step reads is a pure function of (seed, step) (tokenmill/rows/schedule.py). There is no
shuffle buffer and no iterator state to save; to resume, start at the step after the last. Each
worker reads only its part of a batch.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from components.train.distributed.strategy import Workers
from tokenmill.errors import TokenmillError
from tokenmill.rows.masking import (
    EVALUATION_EPOCH,
    EVALUATION_SEED,
    mask_batch,
)
from tokenmill.rows.packed_split import Batch, PackedSplit
from tokenmill.rows.schedule import row_order
from tokenmill.rows.widths import widths_of

# Slots that are read at once, where batches are smaller: each call from TensorFlow into Python
# takes as long as reading thirty rows.
_SLOTS_AT_ONCE = 1 << 16
_READS_AT_ONCE, _BATCHES_AHEAD = 2, 4


@dataclass(frozen=True)
class Share:
    """The part of each global batch that one reader reads: `count` of `of` equal parts.

    A worker with two replicas of eight in all has count 2 and of 8: its dataset gives two elements
    a step, a replica's rows each.

    Attributes:
        first: Number of the first part, from 0.
        count: Parts that follow each other.
        of: Parts of a global batch.
    """

    first: int = 0
    count: int = 1
    of: int = 1


ALL_ROWS = Share()
"""One reader that reads whole batches."""


def training_batches(
    split: PackedSplit,
    global_batch_size: int,
    steps: int,
    seed: int,
    first_step: int = 0,
    share: Share = ALL_ROWS,
) -> tf.data.Dataset:
    """Return the batches of the steps first_step .. steps - 1.

    The split's own task (its manifest) decides what they are: next tokens, or tokens hidden anew
    in every epoch.

    Args:
        split: The packed rows.
        global_batch_size: Rows a step, of all workers.
        steps: Where training ends.
        seed: Of the order and the masks.
        first_step: Where it goes on; the whole state of the data.
        share: What this reader reads; by default all.

    Returns:
        A dataset of `Batch`, arrays of [global_batch_size / share.of, sequence_length],
        share.count elements a step. In classification they are as wide as the step needs.

    Raises:
        TokenmillError: The batch cannot be divided into so many parts.
    """
    order = row_order(split, global_batch_size, seed)
    varies = split.task == "classification"
    mask = _masker(split)
    rows = _rows_of_part(global_batch_size, share.of)

    def rows_of(element: int) -> tuple[np.ndarray, np.ndarray]:
        step, part = divmod(element, share.count)
        mine = slice((share.first + part) * rows, (share.first + part + 1) * rows)
        numbers, epochs = order.rows_of_step(first_step + step)
        return numbers[mine], epochs[mine]

    def read(elements: range) -> Batch:
        wanted = zip(*map(rows_of, elements), strict=True)
        numbers, epochs = (np.concatenate(parts) for parts in wanted)
        width = order.width_of_step(first_step + elements[0] // share.count)
        return mask(split.read(numbers, width), numbers, epochs, seed)

    count = max(0, steps - first_step) * share.count
    return _dataset(read, count, rows, None if varies else split.sequence_length)


def evaluation_batches(
    split: PackedSplit, global_batch_size: int, share: Share = ALL_ROWS
) -> tf.data.Dataset:
    """Return all rows once, in order; the last batch is filled up with rows of weight 0.

    In classification the order is that of their widths.

    Masks are the same at every call, whatever the run's seed. Arguments, elements and errors are
    those of `training_batches`.
    """
    mask = _masker(split)
    rows = _rows_of_part(global_batch_size, share.of)
    varies = split.task == "classification"
    order, width_at = np.arange(split.rows), np.full(split.rows, split.sequence_length)
    if varies:
        width_at = widths_of(split.row_lengths()[: split.rows], split.sequence_length)
        order = np.argsort(width_at, kind="stable")
        width_at = width_at[order]

    def rows_of(element: int) -> np.ndarray:
        step, part = divmod(element, share.count)
        return step * global_batch_size + (share.first + part) * rows + np.arange(rows)

    def read(elements: range) -> Batch:
        places = np.concatenate([rows_of(element) for element in elements])
        there = places < split.rows
        numbers = order[places[there]]
        epochs = np.full(len(numbers), EVALUATION_EPOCH)
        end = min((elements[-1] // share.count + 1) * global_batch_size, split.rows)
        batch = split.read(numbers, int(width_at[end - 1]))
        batch = mask(batch, numbers, epochs, EVALUATION_SEED)

        def filled(array: np.ndarray) -> np.ndarray:
            every = np.zeros((len(places), *array.shape[1:]), array.dtype)
            every[there] = array
            return every

        return batch if there.all() else Batch(*map(filled, batch))

    steps = -(-split.rows // global_batch_size)
    return _dataset(read, steps * share.count, rows, None if varies else split.sequence_length)


def distribute(
    strategy: tf.distribute.Strategy, batches_of: Callable[[Share], tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Return the batches for a strategy; each worker's process reads its own part and no more.

    Args:
        strategy: Where the replicas are.
        batches_of: Gives the dataset of a share: `training_batches` or `evaluation_batches` with
            everything but the share filled in.
    """

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        share = Share(context.input_pipeline_id * replicas, replicas, context.num_replicas_in_sync)
        return batches_of(share)

    workers = Workers(strategy)
    if workers.replicas_each == 1:
        # tf.distribute's iterators ask all workers before each step whether there is one, and take
        # as long to free as they were used, up to a minute, since they are autotuned.
        return batches_of(Share(workers.index, 1, workers.count))
    return strategy.distribute_datasets_from_function(dataset)


@contextlib.contextmanager
def reading(*splits: PackedSplit) -> Iterator[None]:
    """Put around whatever takes batches: TensorFlow hides the error of a damaged row in its own.

    Raises:
        TokenmillError: A row of one of these splits could not be read; names file and row.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for split in splits:
            if split.failure is not None:
                raise split.failure from error
        raise


def _rows_of_part(global_batch_size: int, parts: int) -> int:
    rows, rest = divmod(global_batch_size, parts)
    if rest:
        raise TokenmillError(
            f"train.global_batch_size = {global_batch_size} cannot be divided by {parts} replicas.",
            f"Use a multiple of {parts}.",
        )
    return rows


def _masker(split: PackedSplit) -> Callable[[Batch, np.ndarray, np.ndarray, int], Batch]:
    """Return the function that hides tokens of a batch; in causal mode it hides none."""
    if split.task != "masked-lm":
        return lambda batch, numbers, epochs, seed: batch
    settings = split.mask_settings()
    flags = split.token_flags()
    return lambda batch, numbers, epochs, seed: mask_batch(
        batch, numbers, epochs, seed, settings, flags
    )


def _dataset(
    read: Callable[[range], Batch], elements: int, rows: int, width: int | None
) -> tf.data.Dataset:
    """Elements 0 .. elements - 1 of `rows` rows, read ahead and in parallel, in order.

    They are read one by one if the width is None: each has its own.
    """
    dtypes = (tf.int32, tf.int32, tf.int32, tf.int32, tf.float32)
    at_once = 1 if width is None else max(1, _SLOTS_AT_ONCE // (rows * width))

    def load(first: tf.Tensor) -> Batch:
        arrays = tf.numpy_function(
            lambda i: read(range(int(i), min(int(i) + at_once, elements))), [first], dtypes
        )
        if width is None:
            return Batch(*(tf.ensure_shape(a, [rows, None])[None] for a in arrays))
        return Batch(*(tf.reshape(a, [-1, rows, width]) for a in arrays))

    dataset = tf.data.Dataset.range(0, elements, at_once).map(
        load, num_parallel_calls=_READS_AT_ONCE, deterministic=True
    )
    dataset = dataset.unbatch().apply(tf.data.experimental.assert_cardinality(elements))
    options = tf.data.Options()
    # Each worker computes its own share; sharding by file does not apply to it.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Freeing an iterator waits for autotuning's thread: 25 seconds after three minutes of training.
    options.autotune.enabled = False
    return dataset.with_options(options).prefetch(_BATCHES_AHEAD)
