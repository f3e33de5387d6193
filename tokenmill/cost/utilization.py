"""Share of the peak that published runs reached: the default where no MFU is given.

Chip-hours of published runs hold everything: steps, checkpoints, restarts, repeated steps. What
they imply is MFU times goodput (PaLM: 46.2 % in its steps, 31 % of the whole bill). A forecast
made of it forecasts a bill, so goodput must not be taken off once more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from data.catalog.chips import Chip, find_chip
from tokenmill.cost.checks import check_positive
from tokenmill.cost.published_runs import PublishedRun, load_published_runs

FlopsBasis = Literal["exact", "6n"]
"""Which count of FLOPs per token times are made of: matrix products, or the rule 6·N."""

# The fewest runs that make a range, and the sizes that count as alike: within this factor.
MIN_RUNS = 3
# A chip's own family says more than others do, even where it has two runs only.
MIN_FAMILY_RUNS = 2
SIZE_FACTOR = 5.0


@dataclass(frozen=True, kw_only=True)
class UtilizationRange:
    """Model FLOPs of whole bills over the peak of their chip-hours, as fractions.

    Attributes:
        low: The lowest of the runs.
        median: Their median.
        high: The highest.
        runs: Names of the runs.
        basis: Which runs these are, in words.
    """

    low: float
    median: float
    high: float
    runs: tuple[str, ...]
    basis: str

    @property
    def words(self) -> str:
        """Description of the runs that the median is of."""
        return f"median of {len(self.runs)} published bills ({self.basis})"


def usable_runs() -> tuple[PublishedRun, ...]:
    """Return the published runs whose utilization may guide a forecast."""
    return tuple(
        run
        for run in load_published_runs()
        if run.achieved_utilization is not None and not run.utilization_caveat and run.chip
    )


def utilization_of(run: PublishedRun, basis: FlopsBasis = "exact") -> float:
    """Return MFU times goodput of a usable run's whole bill, a fraction.

    Args:
        run: A run of ``usable_runs``.
        basis: Which FLOPs to divide by the peak.
    """
    # A token passes one of an encoder-decoder's two stacks: 6·N counts about twice.
    two_stacks = run.shape is not None and run.shape.encoder_layers > 0
    rule = basis == "6n" and not two_stacks
    value = run.implied_mfu if rule else run.achieved_utilization
    if value is None:
        raise ValueError(f"{run.name}: no chip-hours, tokens or peak; use one of usable_runs().")
    return value


def utilization_range(
    chip: Chip,
    params: float,
    basis: FlopsBasis = "exact",
    without: str | None = None,
    sparse: bool = False,
) -> UtilizationRange:
    """Find the utilization to expect of a chip at a model size.

    Runs of the chip's family and of a size within a factor of 5 come first; if they are fewer
    than three, those of the family at any size, if two at least; then those on its vendor's chips,
    then all runs. Mixtures of experts guide those alone, and dense models dense ones: small
    products and sending tokens to experts cost the former a part of the peak.

    Args:
        chip: The chip.
        params: N, parameters that each token passes.
        basis: Which FLOPs the utilization is of; use the same for the forecast.
        without: Name of a run to leave out (leave-one-out validation).
        sparse: Whether the model is a mixture of experts.

    Returns:
        The range.
    """
    check_positive("params", params, "parameters")
    runs = [run for run in usable_runs() if run.name != without and run.is_sparse == sparse]
    models = "mixtures of experts" if sparse else "models"

    def of_family(run: PublishedRun) -> bool:
        return find_chip(run.chip).family == chip.family

    def of_size(run: PublishedRun) -> bool:
        return abs(math.log(run.params_active / params)) <= math.log(SIZE_FACTOR)

    def of_vendor(run: PublishedRun) -> bool:
        return find_chip(run.chip).vendor == chip.vendor

    pools: list[tuple[str, Callable[[PublishedRun], bool]]] = [
        (f"{chip.family} chips, {models} within 5x", lambda run: of_family(run) and of_size(run)),
        (f"{chip.family} chips, {models} of all sizes", of_family),
        (f"{chip.vendor} chips, {models} within 5x", lambda run: of_vendor(run) and of_size(run)),
        (f"{chip.vendor} chips, {models} of all sizes", of_vendor),
        (f"all chips, {models} within 5x", of_size),
        (f"all chips, {models} of all sizes", lambda run: True),
    ]
    for words, wanted in pools:
        pool = [run for run in runs if wanted(run)]
        if len(pool) >= (MIN_FAMILY_RUNS if wanted is of_family else MIN_RUNS):
            return _range_of(pool, basis, words)
    raise ValueError("published_runs.csv has too few runs; restore it from version control.")


def _range_of(pool: list[PublishedRun], basis: FlopsBasis, words: str) -> UtilizationRange:
    values = [utilization_of(run, basis) for run in pool]
    return UtilizationRange(
        low=min(values),
        median=statistics.median(values),
        high=max(values),
        runs=tuple(run.name for run in pool),
        basis=words,
    )
