"""Feeds packed rows to the training loop.

Which rows a step reads is a pure function of (seed, step): a permutation of each source's rows for
each of its epochs, computed index by index. There is no shuffle buffer and no iterator state to
save; to resume, start at the step after the last. Each worker reads only its part of a batch.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from components.errors import TokenmillError
from components.pack.masking import (
    EVALUATION_EPOCH,
    EVALUATION_SEED,
    MaskSettings,
    mask_batch,
)
from components.pack.rows import Batch, PackedSplit
from components.train.plan import Mixture
from components.train.strategy import Workers

_STEPS_AT_ONCE = 64
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


class RowOrder:
    """Which rows of a split each step reads.

    Args:
        split: The packed rows.
        global_batch_size: Rows a step.
        seed: Seed of the order.
    """

    def __init__(self, split: PackedSplit, global_batch_size: int, seed: int):
        self._batch, self._seed = global_batch_size, seed
        self._mixture = Mixture.of(split.manifest)
        self._groups = _rows_of_sources(split.manifest, self._mixture.sources)
        # TensorFlow takes as long to permute one step's numbers as those of many.
        self._steps_of = functools.lru_cache(maxsize=4)(self._compute)

    def rows_of_step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of a step, and how often each was read before; int64 [global_batch_size].

        Raises:
            IndexError: All sources have come to their repetition limit.
        """
        block, place = divmod(step, _STEPS_AT_ONCE)
        mine = slice(place * self._batch, (place + 1) * self._batch)
        numbers, epochs = (array[mine] for array in self._steps_of(block))
        if len(numbers) < self._batch:
            available = self._mixture.rows_available
            raise IndexError(f"step {step}: pack.max_repetitions leaves {available} rows in all")
        return numbers, epochs

    def _compute(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers and epochs of a block of steps, as far as there are rows."""
        size, available = _STEPS_AT_ONCE * self._batch, self._mixture.rows_available
        end = (block + 1) * size
        samples = np.arange(block * size, end if available is None else min(end, available))
        source, ordinal = self._mixture.draws(samples)
        epochs, indices = np.divmod(ordinal, self._mixture.rows[source])
        sources = len(self._mixture.sources)
        # A permutation for each source and epoch.
        streams = epochs * sources + source
        numbers = np.empty(len(samples), np.int64)
        for stream in np.unique(streams):
            mine = streams == stream
            starts, firsts = self._groups[stream % sources]
            places = _permute(indices[mine], self._seed, stream, int(starts[-1]))
            group = np.searchsorted(starts, places, side="right") - 1
            numbers[mine] = firsts[group] + places - starts[group]
        return numbers, epochs


def _permute(indices: np.ndarray, seed: int, stream: int, rows: int) -> np.ndarray:
    return tf.random.experimental.index_shuffle(
        tf.constant(indices, tf.int64),
        seed=tf.constant([seed, stream], tf.uint32),
        max_index=tf.constant(rows - 1, tf.int64),
    ).numpy()


def _rows_of_sources(manifest: dict, sources: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each source, where its groups of rows begin, in its own count and in the split's."""
    if sources == [""]:
        return [(np.array([0, manifest["rows"]]), np.array([0]))]
    groups: dict[str, list[tuple[int, int]]] = {source: [] for source in sources}
    first = 0
    for shard in manifest["shards"]:
        for source, rows in shard["rows_by_source"]:
            groups[source].append((first, rows))
            first += rows
    return [
        (
            np.cumsum([0] + [rows for _, rows in groups[source]]),
            np.array([first for first, _ in groups[source]]),
        )
        for source in sources
    ]


def training_batches(
    split: PackedSplit,
    global_batch_size: int,
    steps: int,
    seed: int,
    first_step: int = 0,
    share: Share = ALL_ROWS,
) -> tf.data.Dataset:
    """Batches of the steps first_step .. steps - 1.

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
        share.count elements a step.

    Raises:
        TokenmillError: The batch cannot be divided into so many parts.
    """
    order = RowOrder(split, global_batch_size, seed)
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
        return mask(split.read(numbers), numbers, epochs, seed)

    return _dataset(read, max(0, steps - first_step) * share.count, rows, split.sequence_length)


def evaluation_batches(
    split: PackedSplit, global_batch_size: int, share: Share = ALL_ROWS
) -> tf.data.Dataset:
    """All rows once, in order; the last batch is filled up with rows of weight 0.

    Masks are the same at every call, whatever the run's seed. Arguments, elements and errors are
    those of `training_batches`.
    """
    mask = _masker(split)
    rows = _rows_of_part(global_batch_size, share.of)

    def rows_of(element: int) -> np.ndarray:
        step, part = divmod(element, share.count)
        return step * global_batch_size + (share.first + part) * rows + np.arange(rows)

    def read(elements: range) -> Batch:
        places = np.concatenate([rows_of(element) for element in elements])
        there = places < split.rows
        numbers = places[there]
        epochs = np.full(len(numbers), EVALUATION_EPOCH)
        batch = mask(split.read(numbers), numbers, epochs, EVALUATION_SEED)

        def filled(array: np.ndarray) -> np.ndarray:
            every = np.zeros((len(places), *array.shape[1:]), array.dtype)
            every[there] = array
            return every

        return batch if there.all() else Batch(*map(filled, batch))

    steps = -(-split.rows // global_batch_size)
    return _dataset(read, steps * share.count, rows, split.sequence_length)


def distribute(
    strategy: tf.distribute.Strategy, batches_of: Callable[[Share], tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """The batches for a strategy; each worker's process reads its own part and no more.

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
    if workers.replicas == workers.count:
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
    """What hides tokens; nothing in causal mode."""
    if split.task != "masked-lm":
        return lambda batch, numbers, epochs, seed: batch
    settings = MaskSettings(split.manifest["mask_rate"], split.manifest["whole_word"])
    flags = split.piece_flags()
    return lambda batch, numbers, epochs, seed: mask_batch(
        batch, numbers, epochs, seed, settings, flags
    )


def _dataset(
    read: Callable[[range], Batch], elements: int, rows: int, sequence_length: int
) -> tf.data.Dataset:
    """Elements 0 .. elements - 1 of `rows` rows, read ahead and in parallel, in order."""
    dtypes = (tf.int32, tf.int32, tf.int32, tf.int32, tf.float32)
    at_once = max(1, _SLOTS_AT_ONCE // (rows * sequence_length))

    def load(first: tf.Tensor) -> Batch:
        arrays = tf.numpy_function(
            lambda i: read(range(int(i), min(int(i) + at_once, elements))), [first], dtypes
        )
        return Batch(*(tf.reshape(a, [-1, rows, sequence_length]) for a in arrays))

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
