"""Cost of each step of the pipeline, and the training that it saved."""

from __future__ import annotations

from dataclasses import dataclass

from tokenmill.contracts.cost_report import ReturnByReason, StepCost, StepReturn
from tokenmill.contracts.ledger import Ledger, Saved
from tokenmill.cost.pricing import SECONDS_PER_HOUR, compute_usd


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Wall time of a step when it ran.

    Attributes:
        step: Node of the pipeline.
        seconds: Wall time.
        vcpus: Cores that it might use.
        ran: Whether that was in this run (False: taken from the cache); None if unknown.
    """

    step: str
    seconds: float
    vcpus: int
    ran: bool | None


def step_costs(times: list[StepTime], ledger: Ledger, trainer_seconds: float) -> list[StepCost]:
    """Bill each step.

    A step on CPUs costs its wall time x its cores at the price of a core; the trainer its seconds
    x the chips at their price. A cached step costs nothing in this run and keeps the cost of the
    run that made it.

    Args:
        times: Every step whose time is known.
        ledger: ledger.json.
        trainer_seconds: What the trainer says of its time, without TFX around it.
    """
    costs = []
    for time in times:
        seconds, units, price = time.seconds, time.vcpus, ledger.price.vcpu_usd_per_hour
        if time.step == "Trainer":
            seconds, units = trainer_seconds, ledger.hardware.chips
            price = ledger.price.usd_per_chip_hour
        hours = seconds * units / SECONDS_PER_HOUR
        bill = compute_usd(hours, price)
        costs.append(
            StepCost(
                step=time.step,
                seconds=seconds,
                chips=units,
                chip_hours=hours,
                usd=bill,
                ran_in_this_run=time.ran,
                usd_in_this_run=None if time.ran is None else bill if time.ran else 0.0,
            )
        )
    return costs


def return_on_curation(
    steps: list[StepCost], ledger: Ledger, step_seconds: float
) -> list[StepReturn]:
    """Compare a step's own cost with the training that it avoided.

    The Curator avoids the steps that dropped text would have added (components/ledger/savings.py);
    what its scorer of quality cost to train is in its cost. The Packer avoids those that one part
    of a document a row would have: padding is computed too. Both at the seconds a step that
    training really took.

    Args:
        steps: What `step_costs` gave.
        ledger: ledger.json.
        step_seconds: Seconds of one training step, measured.
    """
    by_name = {step.step: step for step in steps}
    packing, saved = ledger.packing["train"], ledger.curation_saved
    unpacked = ledger.training.steps * (packing.segments / packing.rows - 1)
    if saved.steps_fixed:  # the same number of steps, whatever the rows hold
        unpacked = 0.0
    paid = next((step.usd for step in steps if step.step == "Trainer"), None)
    lines = []
    for name, steps_saved in (("Curator", saved.steps), ("Packer", unpacked)):
        cost = by_name.get(name)
        if cost is None:
            continue
        if name == "Curator" and (scorer := by_name.get("QualityTrainer")) is not None:
            cost = _sum(cost, scorer)
        hours = steps_saved * step_seconds * ledger.hardware.chips / SECONDS_PER_HOUR
        gain = compute_usd(hours, ledger.price.usd_per_chip_hour)
        lines.append(
            StepReturn(
                step=name,
                cost_chip_hours=cost.chip_hours,
                cost_usd=cost.usd,
                cost_usd_in_this_run=(
                    cost.usd if cost.usd_in_this_run is None else cost.usd_in_this_run
                ),
                saved_training_steps=steps_saved,
                saved_chip_hours=hours,
                saved_usd=gain,
                saved_over_cost=gain / cost.usd if cost.usd else None,
                by_reason=_by_reason(saved, hours, gain) if name == "Curator" else {},
                **(_measured(ledger, paid) if name == "Curator" else {}),
            )
        )
    return lines


def _sum(cost: StepCost, more: StepCost) -> StepCost:
    """Add what another step cost for the sake of the first."""
    in_this_run = [
        step.usd if step.usd_in_this_run is None else step.usd_in_this_run for step in (cost, more)
    ]
    return cost.model_copy(
        update={
            "chip_hours": cost.chip_hours + more.chip_hours,
            "usd": cost.usd + more.usd,
            "usd_in_this_run": sum(in_this_run),
        }
    )


def _measured(ledger: Ledger, paid_usd: float | None) -> dict[str, float | None]:
    """Return what the text's measured value is worth in this training: quality and money."""
    measured = ledger.measured
    if measured is None or measured.difference is None:
        return {}
    ratio = measured.multiplier.value if measured.multiplier else None
    return {
        "measured_bits_per_byte": -measured.difference.mean,
        "measured_saved_usd": None if ratio is None or paid_usd is None else (ratio - 1) * paid_usd,
    }


def _by_reason(saved: Saved, hours: float, gain: float) -> dict[str, ReturnByReason]:
    return {
        reason: ReturnByReason(
            documents=part.documents,
            tokens_estimated=part.tokens_estimated,
            saved_chip_hours=hours * part.bytes / saved.bytes,
            saved_usd=gain * part.bytes / saved.bytes,
        )
        for reason, part in saved.by_reason.items()
        if saved.bytes
    }
