"""Which rows each step reads: a pure function of (seed, step).

A permutation of each source's rows for each of its epochs, computed index by index. A classifier's
rows are as wide as their documents are long, so that its batches are made of rows of like width.
"""

import functools

import numpy as np
import tensorflow as tf

from tokenmill.contracts.packed_rows import PackedManifest
from tokenmill.rows.mixture import Mixture
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.widths import widths_of

_STEPS_AT_ONCE = 64


class RowOrder:
    """Which rows of a split each step reads.

    Args:
        split: The packed rows.
        global_batch_size: Rows a step.
        seed: Seed of the order.
    """

    def __init__(self, split: PackedSplit, global_batch_size: int, seed: int):
        self._split, self._batch, self._seed = split, global_batch_size, seed
        self._mixture = Mixture.of(split.manifest)
        self._groups = _rows_of_sources(split.manifest, self._mixture.sources)
        # TensorFlow takes as long to permute one step's numbers as those of many.
        self._steps_of = functools.lru_cache(maxsize=4)(self._compute)

    def rows_of_step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a step's row numbers and earlier reads of each, int64 [global_batch_size].

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

    def width_of_step(self, step: int) -> int:
        """Return the slots of each row of a step's batch."""
        del step
        return self._split.sequence_length

    def _compute(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute row numbers and epochs of a block of steps, as far as there are rows."""
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


def _rows_of_sources(
    manifest: PackedManifest, sources: list[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return where each source's groups of rows begin, in its own count and in the split's."""
    if sources == [""]:
        return [(np.array([0, manifest.rows]), np.array([0]))]
    groups: dict[str, list[tuple[int, int]]] = {source: [] for source in sources}
    first = 0
    for shard in manifest.shards:
        for source, rows in shard.rows_by_group:
            groups[source].append((first, rows))
            first += rows
    return [
        (
            np.cumsum([0] + [rows for _, rows in groups[source]]),
            np.array([first for first, _ in groups[source]]),
        )
        for source in sources
    ]


class BucketedOrder(RowOrder):
    """The order of a classifier's rows: batches of like width, each row once an epoch.

    The steps of an epoch come in pools of 64. A pool reads the rows that `RowOrder` gives its
    steps; they are sorted by width (rows of a width stay in their random order), cut into batches,
    and the batches shuffled. All batches are full, so that there are as many steps as for other
    tasks, and pools end where the steps of so many whole epochs do.
    """

    def __init__(self, split: PackedSplit, global_batch_size: int, seed: int):
        super().__init__(split, global_batch_size, seed)
        self._rows = split.rows
        self._widths = widths_of(split.row_lengths(), split.sequence_length)
        self._pool_of = functools.lru_cache(maxsize=2)(self._compute_pool)

    def rows_of_step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return row numbers and earlier reads of a step, as in `RowOrder`."""
        first, end = self._pool(step)
        numbers, epochs = self._pool_of(first, end)
        return numbers[step - first], epochs[step - first]

    def width_of_step(self, step: int) -> int:
        """Return the slots of each row of a step's batch: what its longest document needs."""
        numbers, _ = self.rows_of_step(step)
        return int(self._widths[numbers].max())

    def _pool(self, step: int) -> tuple[int, int]:
        """Find the first step of a step's pool, and the one after its last."""

        def begin(epoch: int) -> int:
            return round(epoch * self._rows / self._batch)  # as plan_steps has it

        epoch = step * self._batch // self._rows
        while begin(epoch + 1) <= step:
            epoch += 1
        while begin(epoch) > step:
            epoch -= 1
        first = begin(epoch) + (step - begin(epoch)) // _STEPS_AT_ONCE * _STEPS_AT_ONCE
        end = min(first + _STEPS_AT_ONCE, begin(epoch + 1))
        if self._mixture.rows_available is not None:
            end = max(step + 1, min(end, self._mixture.rows_available // self._batch))
        return first, end

    def _compute_pool(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute row numbers and epochs of a pool's steps, each [steps, global_batch_size]."""
        parts = [super(BucketedOrder, self).rows_of_step(step) for step in range(first, end)]
        numbers, epochs = (np.concatenate(part) for part in zip(*parts, strict=True))
        batches = np.argsort(self._widths[numbers], kind="stable").reshape(-1, self._batch)
        generator = np.random.Generator(np.random.Philox(key=[self._seed, first]))
        batches = batches[generator.permutation(len(batches))]
        return numbers[batches], epochs[batches]


def row_order(split: PackedSplit, global_batch_size: int, seed: int) -> RowOrder:
    """Choose the order of a split's rows by its task; arguments are those of `RowOrder`."""
    kind = BucketedOrder if split.task == "classification" else RowOrder
    return kind(split, global_batch_size, seed)
