"""Paired small trainings of several variants, seed after seed, until the answers are clear.

A seed trains all variants that are still open: the same initial weights, the same number of
steps. After planned numbers of seeds, fixed beforehand, intervals are looked at; a variant whose
verdict is clear is trained no further. So a study may stop early, and its intervals still hold
(tokenmill/cost/paired_comparison.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from components.train.config import TrainConfig
from pipeline.studies.held_out import ALL, HeldOutLoss
from pipeline.studies.proxy_runs import ProxyJob, ProxyOutcome, ProxyResult, ProxyRuns
from tokenmill.cost.paired_comparison import (
    CONFIDENCE,
    LEAST_SEEDS,
    PairedDifference,
    confidence_of_look,
    paired_difference,
    planned_looks,
)
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape

Stopped = Literal["clear", "budget", "seeds"]

# The reference's counts of steps, in those at which variants are compared: its curve.
CURVE = (0.25, 0.5, 1.0, 2.0)
# Seeds whose reference is trained beyond the comparison: a curve needs fewer than a difference.
_CURVE_SEEDS = LEAST_SEEDS
# So that the warm-up does not depend on how long a trunk is: it is Adam's memory, or as much of the
# shortest count as components/train/config.py allows.
_WARMUP_FRACTION = 0.0


@dataclass
class Arm:
    """One variant in training.

    Attributes:
        name: Of the variant.
        runs: Trains on its rows.
        shape: The small model, with the vocabulary of its tokenizer.
        train: The section [train] for it.
        steps: Steps at which it is compared.
        source_weights: Share of the rows of each source.
        outcomes: What each seed left, in their order.
        is_open: Whether the next seed is trained.
    """

    name: str
    runs: ProxyRuns
    shape: ModelShape
    train: TrainConfig
    steps: int
    source_weights: Mapping[str, float]
    outcomes: list[ProxyOutcome] = field(default_factory=list)
    is_open: bool = True

    def job(self, seed: int, with_curve: bool) -> ProxyJob:
        """Return what a seed trains.

        Args:
            seed: Of weights and the order of rows.
            with_curve: Whether it is trained beyond the comparison, too.
        """
        parts = CURVE if with_curve else (CURVE[0], 1.0)
        return ProxyJob(
            shape=self.shape,
            train=self.train.model_copy(update={"warmup_fraction": _WARMUP_FRACTION}),
            steps=tuple(max(2, round(part * self.steps)) for part in parts),
            seed=seed,
            source_weights=self.source_weights,
        )

    @property
    def compared(self) -> list[ProxyResult]:
        """The model of each seed at the steps where variants are compared."""
        return [
            next(result for result in outcome.results if result.steps == self.steps)
            for outcome in self.outcomes
        ]


@dataclass(frozen=True)
class Comparison:
    """What a study knows of a variant.

    Attributes:
        differences: By held-out set; `all` is of the deciding ones.
        clear: Whether its verdict is no longer open.
    """

    differences: dict[str, PairedDifference]
    clear: bool


class PairedRuns:
    """The trainings of a study.

    Args:
        arms: The variants, the reference first.
        deciding: Names of the held-out sets that verdicts go by.
        seeds: Seeds, at most so many as are listed.
        margin: Share of the reference's bits per byte that counts as no difference.
        deadline: When the budget is spent, by time.monotonic().

    Attributes:
        looks: After how many seeds results are looked at.
        looked: After how many they were.
        margin: The largest difference that counts as none, bits per byte; set at the first look.
        stopped: Why no further seed was trained.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        deciding: Sequence[str],
        seeds: Sequence[int],
        margin: float,
        deadline: float = math.inf,
    ):
        self.reference, *self.others = arms
        self._deciding, self._seeds = tuple(deciding), tuple(seeds)
        self._share, self._deadline = margin, deadline
        self.looks = planned_looks(len(seeds))
        self.confidence_of_look = confidence_of_look(len(self.looks), CONFIDENCE)
        self.comparisons: dict[str, Comparison] = {}
        self.looked: list[int] = []
        self.stopped: Stopped = "seeds"
        self.margin = 0.0

    @property
    def seeds(self) -> list[int]:
        """Seeds that the reference was trained with."""
        return list(self._seeds[: len(self.reference.outcomes)])

    def loss(self, result: ProxyResult) -> float:
        """Return the bits per byte of a model on the deciding held-out texts."""
        return self.decisive(result).bits_per_byte

    def decisive(self, result: ProxyResult) -> HeldOutLoss:
        """Return the losses of the deciding held-out documents."""
        losses = [result.losses[name] for name in self._deciding]
        return HeldOutLoss(
            np.concatenate([each.nll for each in losses]),
            np.concatenate([each.bytes for each in losses]),
        )

    def _strata(self, result: ProxyResult) -> np.ndarray:
        """Return the number of the set of each deciding document: sets are sources."""
        sizes = [len(result.losses[name].bytes) for name in self._deciding]
        return np.repeat(np.arange(len(sizes)), sizes)

    def run(self, shown: Callable[[int, Arm], None], seed_done: Callable[[int], None]) -> None:
        """Train seed after seed until all verdicts are clear, or seeds or budget are used up.

        Args:
            shown: Called before each training, with the number of its seed from 1.
            seed_done: Called after each seed.

        Raises:
            TokenmillError: A training diverged, or the budget does not pay for enough seeds.
        """
        longest = 0.0
        for number, seed in enumerate(self._seeds, start=1):
            started = time.monotonic()
            if self._wants_to_train(seed, number) and started + longest > self._deadline:
                self._stop_for_budget(number - 1)
                return
            for arm in (self.reference, *self.others):
                if arm.is_open:
                    shown(number, arm)
                    arm.outcomes.append(arm.runs.run(self._job(arm, seed, number)))
            longest = max(longest, time.monotonic() - started) if number > 1 else 0.0
            seed_done(number)
            if not self.others:  # only the reference's own losses are asked for
                self.stopped = "clear"
                return
            if number in self.looks:
                self._look(number)
                if not any(arm.is_open for arm in self.others):
                    self.stopped = "clear"
                    return

    def _job(self, arm: Arm, seed: int, number: int) -> ProxyJob:
        return arm.job(seed, arm is self.reference and number <= _CURVE_SEEDS)

    def _wants_to_train(self, seed: int, number: int) -> bool:
        """Return whether a seed has to be trained: what was trained before costs nothing."""
        arms = [arm for arm in (self.reference, *self.others) if arm.is_open]
        return not all(arm.runs.has(self._job(arm, seed, number)) for arm in arms)

    def _stop_for_budget(self, seeds: int) -> None:
        self.stopped = "budget"
        if seeds < LEAST_SEEDS:
            raise TokenmillError(
                f"the budget was spent after {seeds} of at least {LEAST_SEEDS} seeds, and of "
                "fewer nothing can be said; what was trained is kept.",
                "Run the same command again, which goes on from there, or give it more: "
                "--max-minutes, --max-usd; or fewer steps: --steps.",
            )
        # The budget does not know the results, so that this look takes the place of a later one.
        if seeds not in self.looked:
            self._look(seeds)

    def _look(self, seeds: int) -> None:
        if not self.looked:
            losses = [self.loss(result) for result in self.reference.compared]
            self.margin = self._share * float(np.mean(losses))
        self.looked.append(seeds)
        for arm in self.others:
            if not arm.is_open:
                continue
            differences = self._differences(arm)
            clear = differences[ALL].verdict(self.margin) != "undecided"
            self.comparisons[arm.name] = Comparison(differences, clear)
            arm.is_open = not clear

    def _differences(self, arm: Arm) -> dict[str, PairedDifference]:
        """Compare a variant with the reference on each set that has two documents or more."""
        pairs = list(zip(self.reference.compared, arm.compared, strict=False))
        found = {}
        for name in [ALL, *(n for n in pairs[0][0].losses if n != ALL)]:
            losses = [
                tuple(self.decisive(r) if name == ALL else r.losses[name] for r in pair)
                for pair in pairs
            ]
            size = losses[0][0].bytes
            if len(size) < 2:
                continue
            found[name] = paired_difference(
                [reference.nll for reference, _ in losses],
                [variant.nll for _, variant in losses],
                size,
                self.confidence_of_look,
                self._strata(pairs[0][0]) if name == ALL else None,
            )
        if ALL not in found:
            raise TokenmillError(
                "the held-out text is a single document: expected two or more, as an interval is "
                "of how much they differ.",
                "Hold out more: --set corpus.eval_fraction=0.2, or --held-out FILE.",
            )
        return found
