"""The budget gate: stops a run that is over its limits, and finds the cheapest ways to fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from components.ledger.config import LedgerJob
from components.ledger.estimate import RunEstimate, RunEstimator
from components.ledger.ledger import Machine, hardware_of
from components.ledger.memory import memory_per_device
from data.catalog.chips import find_chip, load_chips
from tokenmill.contracts.ledger import Chips, Ledger
from tokenmill.contracts.packed_rows import PackedManifest
from tokenmill.contracts.training import Phase
from tokenmill.cost.devices import CPU_CHIP, USER_PRICE
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.cost.utilization import utilization_range
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape
from tokenmill.number_format import count, decimal, usd, usd_price

WAYS_SHOWN = 3
# A way to fit must not miss by rounding.
_MARGIN = 0.98


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to stay within the budget, computed with the ledger's own formulas.

    Attributes:
        kind: `fewer_steps`, `more_epochs`, `other_chip`, `more_chips`, `smaller_model` or
            `shorter_sequence`.
        changes: Configuration keys and their new values.
        estimate: The run with these changes.
    """

    kind: str
    changes: dict[str, Any]
    estimate: RunEstimate


def overruns(ledger: Ledger) -> list[str]:
    """List the limits that an estimate is over, each as a sentence's part."""
    budget, cost, training = ledger.budget, ledger.cost, ledger.training
    found = []
    if budget.max_usd is not None and cost.compute_usd > budget.max_usd:
        found.append(
            f"{usd(cost.compute_usd)} of compute ({decimal(cost.chip_hours, 4)} chip-hours at "
            f"{usd_price(ledger.price.usd_per_chip_hour)} an hour) is more than budget.max_usd = "
            f"{usd(budget.max_usd)}"
        )
    if _over(cost.wall_hours, budget.max_hours):
        found.append(
            f"{decimal(cost.wall_hours, 4)} hours is more than budget.max_hours = "
            f"{budget.max_hours:g}"
        )
    if _over(training.epochs, budget.max_epochs):
        found.append(
            f"{decimal(training.epochs, 4)} epochs is more than budget.max_epochs = "
            f"{budget.max_epochs:g}"
        )
    least = budget.min_effective_tokens
    if least is not None and training.effective_tokens < least:
        found.append(
            f"{training.effective_tokens:,.0f} effective tokens is less than "
            f"budget.min_effective_tokens = {least:,.0f}"
        )
    return found


def _over(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


class OverBudgetError(TokenmillError):
    """The estimate is over a limit.

    Attributes:
        ledger: The estimate, which a report shows whether the run may go on or not.
    """

    def __init__(self, ledger: Ledger, message: str, hint: str):
        super().__init__(message, hint)
        self.ledger = ledger


def check_budget(
    ledger: Ledger,
    packed: Mapping[str, PackedManifest],
    settings: LedgerJob,
    machine: Machine,
) -> None:
    """Stop a run that is over its budget.

    Args:
        ledger: What `build_ledger` gave for the other three.
        packed: Manifest of the packed rows by split.
        settings: What is to be trained, on what, at what price, within which limits.
        machine: What was measured.

    Raises:
        OverBudgetError: The estimate is over a limit; the hint has the cheapest ways to fit.
    """
    over = overruns(ledger)
    if not over:
        return
    ways = ways_to_fit(packed, settings, machine)
    lines = [_describe(way, ledger) for way in ways[:WAYS_SHOWN]]
    hint = "No single change fits: raise the limit, or give more text."
    if lines:
        hint = "Ways to fit, least loss first:\n" + "\n".join(f"  {line}" for line in lines)
    raise OverBudgetError(
        ledger,
        f"training is over its budget: {'; '.join(over)}. It would give "
        f"{count(ledger.training.effective_tokens)} effective tokens; nothing was trained.",
        hint,
    )


def ways_to_fit(
    packed: Mapping[str, PackedManifest], settings: LedgerJob, machine: Machine
) -> list[Way]:
    """Find changes of one kind each that bring the run within every limit.

    Returns:
        The best of each kind; least expected loss first, then the least money.
    """
    search = _Search(packed, settings, machine)
    best: dict[str, Way] = {}
    for way in search.candidates():
        known = best.get(way.kind)
        if search.fits(way.estimate) and (known is None or _rank(way) < _rank(known)):
            best[way.kind] = way
    return sorted(best.values(), key=_rank)


def _rank(way: Way) -> tuple[float, float, float]:
    cost = way.estimate.cost
    return round(way.estimate.expected_loss, 4), cost.compute_usd, cost.wall_seconds


def _describe(way: Way, ledger: Ledger) -> str:
    options = " ".join(f"--set {key}={value}" for key, value in way.changes.items())
    estimate = way.estimate
    before = ledger.guidance.expected_loss.nats_per_token
    loss = f"{estimate.expected_loss - before:+.2f} expected loss"
    return (
        f"{options}: {usd(estimate.cost.compute_usd)}, {decimal(estimate.cost.wall_hours)} h, "
        f"{count(estimate.effective_tokens)} effective tokens, {loss}"
    )


class _Search:
    """Tries changes of one kind each."""

    def __init__(
        self,
        packed: Mapping[str, PackedManifest],
        settings: LedgerJob,
        machine: Machine,
    ):
        self._settings = settings
        self._estimator = RunEstimator(packed, settings, machine.calibration)
        self._shape = self._estimator.shape
        self._hardware = hardware_of(settings, machine, self._shape)
        self._now = self._estimate()

    def fits(self, estimate: RunEstimate) -> bool:
        """Say whether an estimate is within all limits."""
        budget = self._settings.budget
        least = budget.min_effective_tokens
        return not (
            _over(estimate.cost.compute_usd, budget.max_usd)
            or _over(estimate.cost.wall_hours, budget.max_hours)
            or _over(estimate.plan.epochs, budget.max_epochs)
            or (least is not None and estimate.effective_tokens < least)
        )

    def candidates(self) -> Iterator[Way]:
        """Yield one change after another, each with its estimate."""
        yield from self._fewer_steps()
        yield from self._more_epochs()
        yield from self._chips()
        yield from self._smaller_models()
        yield from self._shorter_sequences()

    def _estimate(
        self,
        shape: ModelShape | None = None,
        chips: Chips | None = None,
        epochs: float | None = None,
    ) -> RunEstimate:
        return self._estimator.estimate(chips or self._hardware, shape=shape, epochs=epochs)

    def _share_allowed(self) -> float:
        """Return the share of the planned steps that every upper limit allows; at most 1."""
        budget, now = self._settings.budget, self._now
        cost = now.cost
        shares = [1.0]
        fixed = cost.wall_seconds * (1 - now.seconds_by_phase[Phase.STEPS] / sum(
            now.seconds_by_phase[p] for p in now.seconds_by_phase if p != Phase.LOST
        ))  # fmt: skip
        for limit, spent in (
            (budget.max_usd, cost.compute_usd),
            (budget.max_hours, cost.wall_seconds / SECONDS_PER_HOUR),
        ):
            if _over(spent, limit) and limit is not None:
                seconds = limit / spent * cost.wall_seconds
                shares.append((seconds - fixed) / (cost.wall_seconds - fixed))
        if _over(now.plan.epochs, budget.max_epochs) and budget.max_epochs is not None:
            shares.append(budget.max_epochs / now.plan.epochs)
        return min(shares)

    def _fewer_steps(self) -> Iterator[Way]:
        share = self._share_allowed()
        for margin in (1.0, _MARGIN, 0.9):
            epochs = _three_digits(self._now.plan.epochs * share * margin)
            if epochs > 0 and share < 1:
                yield Way(
                    kind="fewer_steps",
                    changes=self._epochs(epochs),
                    estimate=self._estimate(epochs=epochs),
                )

    def _more_epochs(self) -> Iterator[Way]:
        least = self._settings.budget.min_effective_tokens
        if least is None or self._now.effective_tokens >= least:
            return
        epochs = self._now.plan.epochs
        for _ in range(12):
            epochs *= 1.25
            rounded = _three_digits(epochs)
            yield Way(
                kind="more_epochs",
                changes=self._epochs(rounded),
                estimate=self._estimate(epochs=rounded),
            )

    def _epochs(self, epochs: float) -> dict[str, Any]:
        """Return the change to so many epochs; a limit of steps would hide it."""
        steps = self._settings.max_steps
        if steps is None:
            return {"train.epochs": epochs}
        plan = self._estimate(epochs=epochs).plan
        return {"train.epochs": epochs, "train.max_steps": plan.steps}

    def _chips(self) -> Iterator[Way]:
        """Try each chip of the catalog, in counts from what the memory needs upward."""
        settings = self._settings
        for chip in load_chips():
            peak, price = chip.peak_for(settings.precision), chip.price_usd_per_chip_hour
            if chip.slug == CPU_CHIP or peak is None or price is None or chip.memory_bytes is None:
                continue
            same = chip.slug == settings.chip
            mfu = self._hardware.mfu if same else settings.given_mfu
            if mfu is None:
                mfu = utilization_range(
                    chip, self._shape.params_active, sparse=self._shape.is_sparse
                ).median
            for chips in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
                if chips > settings.global_batch_size or (same and chips <= settings.chips):
                    continue
                memory = memory_per_device(self._shape, settings, chips)
                if not memory.fits(chip):
                    continue
                alternative = Chips(
                    chip=chip.slug,
                    chips=chips,
                    peak_flops_per_second=(self._hardware.peak_flops_per_second if same else peak),
                    mfu=mfu,
                    goodput=settings.goodput,
                    price_usd_per_chip_hour=(
                        self._hardware.price_usd_per_chip_hour if same else price
                    ),
                )
                way = Way(
                    kind="more_chips" if same else "other_chip",
                    changes={"cost.chips": chips}
                    if same
                    else self._other_chip(chip.slug, chips, peak, price),
                    estimate=self._estimate(chips=alternative),
                )
                yield way
                if self.fits(way.estimate):
                    break  # more of the same cost as much

    def _other_chip(self, slug: str, chips: int, peak: float, price: float) -> dict[str, Any]:
        """Return the changed keys; numbers that the user gave for the old chip must go too."""
        settings = self._settings
        changes: dict[str, Any] = {"cost.chip": slug, "cost.chips": chips}
        measured = settings.given_mfu is None and settings.published_mfu is None
        if measured and settings.chip != CPU_CHIP:
            changes["cost.mfu"] = "auto"  # it was "measured", which the new chip is not here for
        if settings.price.source == USER_PRICE:
            changes["cost.price_usd_per_chip_hour"] = price
        given = settings.peak_flops_per_second_per_chip
        if given is not None and given != find_chip(settings.chip).peak_for(settings.precision):
            changes["cost.peak_flops_per_second_per_chip"] = peak
        return changes

    def _smaller_models(self) -> Iterator[Way]:
        if self._settings.lora is not None:
            return  # the base model is as large as it is
        shape = self._shape
        step = shape.heads * (2 if shape.positions == "rope" else 1)
        for width in range(shape.d_model // step * step, 0, -step):
            for layers in (shape.layers, *({(shape.layers + 1) // 2} - {shape.layers})):
                d_ff = max(1, round(shape.d_ff * width / shape.d_model))
                if (width, layers) == (shape.d_model, shape.layers):
                    continue
                smaller = shape.resized(d_model=width, layers=layers, d_ff=d_ff)
                of_experts = ("expert_d_ff", "first_dense_layers", "moe_every")
                yield Way(
                    kind="smaller_model",
                    changes={
                        "model.layers": layers, "model.d_model": width, "model.d_ff": d_ff,
                        **{
                            f"model.{key}": getattr(smaller, key)
                            for key in of_experts if getattr(smaller, key) != getattr(shape, key)
                        },
                    },
                    estimate=self._estimate(shape=smaller),
                )  # fmt: skip

    def _shorter_sequences(self) -> Iterator[Way]:
        if self._estimator.slots_per_row is not None:
            return  # a classifier's documents would be cut, not spread over more rows
        length = self._shape.sequence_length // 2
        while length >= 64:
            shorter = dataclasses.replace(self._shape, sequence_length=length)
            yield Way(
                kind="shorter_sequence",
                changes={"model.sequence_length": length},
                estimate=self._estimate(shape=shorter),
            )
            length //= 2


def _three_digits(number: float) -> float:
    """Round down to three significant digits, so that a limit still holds."""
    if number <= 0:
        return 0.0
    digits = f"{number:.2e}"
    rounded = float(digits)
    return rounded if rounded <= number else float(f"{rounded - 10 ** (int(digits[5:]) - 2):.2e}")
