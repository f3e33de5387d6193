"""The budget during training, and the bill that is projected for its end.

Plain arithmetic without a clock: the training loop passes the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tokenmill.contracts.training_limits import TrainingLimits
from tokenmill.cost.checks import check_positive
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.number_format import count, decimal, usd

Decision = Literal["warn", "stop"]

# The first steps compile and warm up; a rate over fewer than these says little of the rest.
MIN_STEPS = 10
# A projection that overruns by less than this is within its own error.
TOLERANCE = 0.02


@dataclass(kw_only=True)
class BudgetMeter:
    """Comparison of the projected end of training with the budget.

    The first update after the first step is the start of the steady rate, so that compilation is
    paid for but not projected. Before a rate over `MIN_STEPS` steps is known only what has already
    been spent counts.

    Attributes:
        price_usd_per_chip_hour: USD for one chip for one hour.
        chips: Number of chips.
        max_usd: Most that training may cost, USD of compute; None for no limit.
        max_hours: Most that training may last, hours of wall time; None for no limit.
        on_overrun: What `update` says: "warn" (once for a projection, once when it has come to
            pass) or "stop".
        message: After a decision, the reason in a sentence; empty before.
    """

    price_usd_per_chip_hour: float
    chips: int
    max_usd: float | None = None
    max_hours: float | None = None
    on_overrun: Decision = "warn"
    message: str = field(default="", init=False)
    _first: tuple[float, int] | None = field(default=None, init=False, repr=False)
    _warned: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive("cost.price_usd_per_chip_hour", self.price_usd_per_chip_hour,
                       "USD per chip-hour", zero_ok=True)  # fmt: skip
        check_positive("cost.chips", self.chips, "chips")
        for key, value, unit in (
            ("budget.max_usd", self.max_usd, "USD"),
            ("budget.max_hours", self.max_hours, "hours"),
        ):
            if value is not None:
                check_positive(key, value, unit, zero_ok=True)
        if self.on_overrun not in ("warn", "stop"):
            raise ValueError(f"budget.on_overrun = {self.on_overrun!r}: expected warn or stop.")

    @classmethod
    def of(cls, limits: TrainingLimits) -> BudgetMeter:
        """Return a fresh meter for a training's limits."""
        return cls(
            price_usd_per_chip_hour=limits.usd_per_chip_hour,
            chips=limits.chips,
            max_usd=limits.max_usd,
            max_hours=limits.max_hours,
            on_overrun=limits.on_overrun,
        )

    @property
    def limit_seconds(self) -> float | None:
        """Wall time that the tighter of the two limits allows, seconds; None without one."""
        limits = []
        if self.max_hours is not None:
            limits.append(self.max_hours * SECONDS_PER_HOUR)
        usd_per_second = self.price_usd_per_chip_hour * self.chips / SECONDS_PER_HOUR
        if self.max_usd is not None and usd_per_second:
            limits.append(self.max_usd / usd_per_second)
        return min(limits, default=None)

    def projected_seconds(self, seconds_so_far: float, step: int, steps: int) -> float | None:
        """Project the whole training's wall seconds at the steady rate so far; None if unknown."""
        if self._first is None:
            return None
        first_seconds, first_step = self._first
        done = step - first_step
        if done < min(MIN_STEPS, steps - first_step) or done < 1:
            return None
        rate = (seconds_so_far - first_seconds) / done
        return seconds_so_far + rate * (steps - step)

    def update(
        self, seconds_so_far: float, tokens_so_far: float, step: int, steps: int
    ) -> Decision | None:
        """Compare where training stands with the budget, and say what to do.

        Args:
            seconds_so_far: Wall time of the training so far, all phases, earlier attempts too.
            tokens_so_far: Tokens trained so far, padding included, for the message.
            step: Steps done, from 1.
            steps: Steps in all.

        Returns:
            None, "warn" or "stop"; `message` says why.
        """
        if self._first is None:
            self._first = (seconds_so_far, step)
        limit = self.limit_seconds
        if limit is None:
            return None
        projected = self.projected_seconds(seconds_so_far, step, steps)
        if seconds_so_far > limit:
            kind, end = "spent", projected if projected is not None else seconds_so_far
        elif projected is not None and step < steps and projected > limit * (1 + TOLERANCE):
            kind, end = "projected", projected
        else:
            return None
        if self.on_overrun == "warn" and kind in self._warned:
            return None
        self._warned.add(kind)
        self.message = self._explain(kind, seconds_so_far, tokens_so_far, step, steps, end)
        return self.on_overrun

    def _explain(
        self, kind: str, seconds: float, tokens: float, step: int, steps: int, end: float
    ) -> str:
        price = self.price_usd_per_chip_hour * self.chips / SECONDS_PER_HOUR
        limits = []
        if self.max_usd is not None:
            limits.append(f"budget.max_usd = {self.max_usd:g}")
        if self.max_hours is not None:
            limits.append(f"budget.max_hours = {self.max_hours:g}")
        what = "is over" if kind == "spent" else "will go over"
        return (
            f"training {what} {' or '.join(limits)}: "
            f"{step:,} of {steps:,} steps and {count(tokens)} tokens took "
            f"{decimal(seconds / SECONDS_PER_HOUR, 4)} h and {usd(seconds * price)}; at this "
            f"rate all steps take {decimal(end / SECONDS_PER_HOUR, 4)} h and {usd(end * price)}."
        )
