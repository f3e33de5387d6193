"""How many steps a run takes and how often it reads each source; nothing here imports TensorFlow.

The ledger plans with the same functions as the trainer runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tokenmill.errors import TokenmillError

if TYPE_CHECKING:
    from tokenmill.contracts.packed_rows import PackedManifest

# Samples of a block of the mixture; weights are rounded to whole samples of it.
_BLOCK = 4096


@dataclass(frozen=True)
class StepPlan:
    """A run's steps.

    Attributes:
        rows: Rows of the training split.
        global_batch_size: Rows a step.
        steps: Steps in all.
    """

    rows: int
    global_batch_size: int
    steps: int

    @property
    def rows_read(self) -> int:
        """Rows that training reads, repetitions counted."""
        return self.steps * self.global_batch_size

    @property
    def epochs(self) -> float:
        """How often the training split is read."""
        return self.rows_read / self.rows


def plan_steps(
    rows: int,
    global_batch_size: int,
    epochs: float,
    max_steps: int | None = None,
    rows_available: int | None = None,
) -> StepPlan:
    """Plan the steps of so many epochs; batches run on into the next epoch, so all are full.

    Args:
        rows: Rows of the training split.
        global_batch_size: Rows a step.
        epochs: How often to read as many rows.
        max_steps: An upper limit.
        rows_available: Another: what `Mixture.rows_available` says of the repetition limits.

    Raises:
        ValueError: There are no rows.
        TokenmillError: The repetition limits leave less than a batch.
    """
    if rows < 1:
        raise ValueError(f"rows = {rows}: expected at least one packed row to train on")
    steps = max(1, round(epochs * rows / global_batch_size))
    if rows_available is not None:
        if rows_available < global_batch_size:
            raise TokenmillError(
                f"pack.max_repetitions leaves {rows_available} rows to read, fewer than "
                f"train.global_batch_size = {global_batch_size}.",
                "Allow more repetitions, or make the batch smaller.",
            )
        steps = min(steps, rows_available // global_batch_size)
    return StepPlan(rows, global_batch_size, min(steps, max_steps or steps))


class Draws(NamedTuple):
    """Where samples come from; arrays of int64, an entry a sample.

    Attributes:
        source: Index into Mixture.sources.
        ordinal: How many rows of that source were drawn before.
    """

    source: np.ndarray
    ordinal: np.ndarray


class _Phase:
    """A stretch of samples with the same weights: one block over and over.

    In the block each source's places lie evenly spread, so that every batch has about the shares
    that the weights say.
    """

    def __init__(self, first: int, drawn: np.ndarray, shares: np.ndarray):
        self.first, self.drawn = first, drawn
        self.quotas = _quotas(shares)
        source = np.repeat(np.arange(len(shares)), self.quotas)
        rank = np.concatenate([np.arange(q) for q in self.quotas])
        order = np.lexsort((source, (rank + 0.5) / self.quotas[source]))
        self.source, self.rank = source[order], rank[order]

    def draws(self, samples: np.ndarray) -> Draws:
        blocks, places = np.divmod(samples - self.first, _BLOCK)
        source = self.source[places]
        return Draws(source, self.drawn[source] + blocks * self.quotas[source] + self.rank[places])

    def drawn_before(self, sample: int) -> np.ndarray:
        blocks, place = divmod(sample - self.first, _BLOCK)
        part = np.bincount(self.source[:place], minlength=len(self.quotas))
        return self.drawn + blocks * self.quotas + part

    def end(self, left: np.ndarray) -> int:
        """Find the sample after which some source, of `left` rows each, has no row any more."""
        ends = []
        for s in np.flatnonzero(self.quotas):
            blocks, rank = divmod(int(left[s]) - 1, int(self.quotas[s]))
            place = np.flatnonzero((self.source == s) & (self.rank == rank))[0]
            ends.append(self.first + blocks * _BLOCK + int(place) + 1)
        return min(ends)


class Mixture:
    """Which source each sample of the training order comes from, by weights and limits.

    Samples are counted from 0 over the whole run. They come in blocks of 4,096, in which each
    source has a fixed number of places, its weight rounded to whole places (at least one), spread
    evenly. So the source of a sample, and how many rows of that source came before it, are known
    at once, without a state. When a source has been read as often as max_repetitions allows, a
    new phase begins, in which the others share its places by their weights.

    Without weights there is one source, which is all rows. With pack.quality_weighting each bucket
    of a source is what a source is otherwise, under a name of its own.

    Attributes:
        sources: Names, sorted; [""] without weights.
        rows: Rows of each, int64.
        weights: Weight of each by its name.
        rows_available: Samples until all sources have come to their limit; None without a limit.

    Args:
        rows_of_sources: Rows of each source.
        weights: Weight of each, of any sum.
        max_repetitions: How often a row may be read; None is no limit.

    Raises:
        TokenmillError: No source has both rows and a weight.
    """

    def __init__(
        self,
        rows_of_sources: Mapping[str, int],
        weights: Mapping[str, float],
        max_repetitions: int | None = None,
    ):
        self.sources = sorted(rows_of_sources)
        self.rows = np.array([rows_of_sources[s] for s in self.sources], np.int64)
        self.weights = dict(weights)
        shares = np.array([weights[s] for s in self.sources], np.float64)
        # A source without rows has no place, whatever its weight.
        shares[self.rows == 0] = 0.0
        if not shares.any():
            raise TokenmillError(
                "pack.source_weights: no source has both rows and a weight above 0.",
                f"Weigh one of {', '.join(s for s in self.sources if rows_of_sources[s])}.",
            )
        self.rows_available: int | None = None
        self._phases = [_Phase(0, np.zeros(len(shares), np.int64), shares)]
        if max_repetitions is None:
            return
        limits = max_repetitions * self.rows
        while True:
            phase = self._phases[-1]
            end = phase.end(limits - phase.drawn)
            drawn = phase.drawn_before(end)
            shares = np.where(drawn < limits, shares, 0.0)
            if not shares.any():
                self.rows_available = end
                return
            self._phases.append(_Phase(end, drawn, shares))

    @classmethod
    def of(cls, manifest: PackedManifest) -> Mixture:
        """Return the mixture of a packed split.

        Raises:
            TokenmillError: There is nothing to read.
        """
        limit = manifest.max_repetitions
        if not manifest.has_weights:
            return cls({"": manifest.rows}, {"": 1.0}, limit)
        rows: dict[str, int] = {}
        for shard in manifest.shards:
            for group, count in shard.rows_by_group:
                rows[group] = rows.get(group, 0) + count
        if manifest.by_bucket:
            return cls(rows, _weights_of_buckets(manifest, rows), limit)
        return cls(rows, manifest.source_weights, limit)

    def draws(self, samples: np.ndarray) -> Draws:
        """Find the source of each of these samples.

        Raises:
            IndexError: All sources have come to their limit before one of these samples.
        """
        if self.rows_available is not None and samples.max(initial=-1) >= self.rows_available:
            raise IndexError(
                f"sample {samples.max()}: pack.max_repetitions leaves {self.rows_available} rows"
            )
        starts = [phase.first for phase in self._phases]
        which = np.searchsorted(starts, samples, side="right") - 1
        draws = Draws(np.empty(len(samples), np.int64), np.empty(len(samples), np.int64))
        for i in np.unique(which):
            mine = which == i
            draws.source[mine], draws.ordinal[mine] = self._phases[i].draws(samples[mine])
        return draws

    def rows_drawn(self, samples: int) -> dict[str, int]:
        """Count the rows of each source among the first `samples`."""
        phase = [p for p in self._phases if p.first <= samples][-1]
        return dict(zip(self.sources, phase.drawn_before(samples).tolist(), strict=True))

    def repetitions(self, samples: int) -> dict[str, float]:
        """Compute each source's own epochs: how often its rows are read in the first `samples`."""
        drawn = self.rows_drawn(samples)
        return {
            source: drawn[source] / rows if rows else 0.0
            for source, rows in zip(self.sources, self.rows.tolist(), strict=True)
        }


def _weights_of_buckets(manifest: PackedManifest, rows: Mapping[str, int]) -> dict[str, float]:
    """Weigh each bucket by its rows times mean score ** quality_weighting.

    The buckets of a source share what the source weighs: its source weight, or else its rows. So
    quality decides within sources and leaves the shares of sources as they are.

    Args:
        manifest: Of the training split.
        rows: Rows of each bucket, by name.
    """
    weights: dict[str, float] = {}
    for source in sorted({bucket.source for bucket in manifest.by_bucket}):
        mine = [bucket for bucket in manifest.by_bucket if bucket.source == source]
        best = max(bucket.mean_score for bucket in mine)
        by_quality = {
            bucket.name: rows[bucket.name]
            * (bucket.mean_score / best) ** manifest.quality_weighting
            for bucket in mine
        }
        total = sum(by_quality.values())
        whole = manifest.source_weights.get(source, 0.0)
        if not manifest.source_weights:
            whole = sum(rows[bucket.name] for bucket in mine)
        for name, weight in by_quality.items():
            weights[name] = whole * weight / total if total else 0.0
    return weights


def _quotas(shares: np.ndarray) -> np.ndarray:
    """Divide a block's places among sources: at least one each, largest remainders rounded up."""
    exact = shares / shares.sum() * _BLOCK
    quotas = np.where(shares > 0, np.maximum(1, np.floor(exact)), 0).astype(np.int64)
    for i in np.argsort(-(exact - quotas), kind="stable")[: max(0, _BLOCK - quotas.sum())]:
        quotas[i] += 1
    while quotas.sum() > _BLOCK:  # many small sources took one each
        quotas[np.argmax(quotas)] -= 1
    return quotas
