"""One run's estimate from its plan: tokens, FLOPs, seconds, money; plain arithmetic.

The ledger makes it once, the budget gate again for every way to fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenmill.cost.flops import flops_per_token
from tokenmill.cost.pricing import CostEstimate, estimate_cost, wall_seconds
from tokenmill.cost.scaling import expected_loss, repetition_discounted_tokens
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import Mixture, StepPlan, plan_steps


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What computes.

    Attributes:
        chip: Slug of the catalog.
        chips: Number of chips.
        peak_flops_per_second: Of one chip.
        mfu: Share of the peak that the steps reach.
        goodput: Share of the wall time that trains, apart from the overheads named here.
        price_usd_per_chip_hour: USD.
    """

    chip: str
    chips: int
    peak_flops_per_second: float
    mfu: float
    goodput: float
    price_usd_per_chip_hour: float


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a run takes.

    Attributes:
        plan: Steps and rows.
        slots: Positions computed in all steps, padding included.
        effective_tokens: Loss-bearing tokens, discounted for repetition.
        total_flops: Exact model FLOPs of all slots.
        seconds_by_phase: Of the trainer: steps by FLOPs / (chips x peak x MFU), the phases that
            calibration timed, and `lost` = what goodput takes.
        cost: Time and money of all phases together.
        expected_loss: Nats per token (Besiroglu et al. 2024's fit), for comparison only.
    """

    plan: StepPlan
    slots: int
    effective_tokens: float
    total_flops: float
    seconds_by_phase: dict[str, float] = field(default_factory=dict)
    cost: CostEstimate
    expected_loss: float

    @property
    def training_seconds(self) -> float:
        """Steps and the compilation of the first."""
        return self.seconds_by_phase["steps"] + self.seconds_by_phase.get("compile", 0.0)


def estimate_run(
    *,
    shape: ModelShape,
    rows: int,
    targets: int,
    global_batch_size: int,
    epochs: float,
    max_steps: int | None,
    hardware: Hardware,
    overhead_seconds: dict[str, float],
    hidden_multipliers: tuple[float, float],
    mixture: Mixture | None = None,
    targets_by_source: Mapping[str, int] | None = None,
    slots_per_row: float | None = None,
) -> RunEstimate:
    """Estimates a run.

    Args:
        shape: The model.
        rows: Packed rows of the training split.
        targets: Loss-bearing tokens of one pass over them.
        global_batch_size: Rows a step.
        epochs: Passes asked for.
        max_steps: Steps at most.
        hardware: What computes.
        overhead_seconds: Wall time of phases other than the steps, by name; may be empty.
        hidden_multipliers: Low and high total cost as multiples of compute.
        mixture: How often each source is read; None where all are read alike and without a limit.
        targets_by_source: Loss-bearing tokens of one pass by source; needed for weights.
        slots_per_row: Positions computed for a row on average; None is the sequence length. A
            classifier's rows are as wide as their documents are long.
    """
    available = None if mixture is None else mixture.rows_available
    plan = plan_steps(rows, global_batch_size, epochs, max_steps, available)
    slots = round(plan.rows_read * (slots_per_row or shape.sequence_length))
    total_flops = flops_per_token(shape).training * slots
    effective = repetition_discounted_tokens(targets, plan.epochs)
    if mixture is not None and targets_by_source and mixture.sources != [""]:
        repetitions = mixture.repetitions(plan.rows_read)
        effective = sum(
            repetition_discounted_tokens(tokens, repetitions.get(source, 0.0))
            for source, tokens in targets_by_source.items()
        )
    steps = wall_seconds(
        total_flops=total_flops,
        chips=hardware.chips,
        peak_flops_per_second=hardware.peak_flops_per_second,
        mfu=hardware.mfu,
    )
    busy = steps + sum(overhead_seconds.values())
    cost = estimate_cost(
        total_flops=total_flops,
        effective_tokens=effective,
        chips=hardware.chips,
        peak_flops_per_second=hardware.peak_flops_per_second,
        mfu=hardware.mfu,
        price_usd_per_chip_hour=hardware.price_usd_per_chip_hour,
        goodput=hardware.goodput * steps / busy,
        hidden_multiplier_low=hidden_multipliers[0],
        hidden_multiplier_high=hidden_multipliers[1],
    )
    lost = busy * (1 / hardware.goodput - 1)
    return RunEstimate(
        plan=plan,
        slots=slots,
        effective_tokens=effective,
        total_flops=total_flops,
        seconds_by_phase={**overhead_seconds, "steps": steps, "lost": lost},
        cost=cost,
        expected_loss=expected_loss(shape.params_total, max(effective, 1.0)),
    )
