"""What each step of the pipeline cost, and what it saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenmill.cost.pricing import SECONDS_PER_HOUR, compute_usd


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """How long a step took when it ran.

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


def step_costs(
    times: list[StepTime], ledger: Mapping[str, Any], trainer_seconds: float
) -> list[dict[str, Any]]:
    """The bill by step.

    A step on CPUs costs its wall time x its cores at the price of a core; the trainer its seconds
    x the chips at their price. A cached step costs nothing in this run and keeps the cost of the
    run that made it.

    Args:
        times: Every step whose time is known.
        ledger: ledger.json.
        trainer_seconds: The trainer's own account of its time, without TFX around it.
    """
    vcpu_price = ledger["price"]["vcpu_usd_per_hour"]
    hardware = ledger["hardware"]
    steps = []
    for time in times:
        seconds, units, price = time.seconds, time.vcpus, vcpu_price
        if time.step == "Trainer":
            seconds, units = trainer_seconds, hardware["chips"]
            price = ledger["price"]["usd_per_chip_hour"]
        hours = seconds * units / SECONDS_PER_HOUR
        bill = compute_usd(hours, price)
        steps.append(
            {
                "step": time.step,
                "seconds": seconds,
                "chips": units,
                "chip_hours": hours,
                "usd": bill,
                "ran_in_this_run": time.ran,
                "usd_in_this_run": None if time.ran is None else bill if time.ran else 0.0,
            }
        )
    return steps


def return_on_curation(
    steps: list[dict[str, Any]], ledger: Mapping[str, Any], step_seconds: float
) -> list[dict[str, Any]]:
    """Each step's own cost beside the training that it avoided.

    The Curator avoids the steps that dropped text would have added (components/ledger/savings.py);
    the Packer those that one piece of a document a row would have: padding is computed too. Both
    at the seconds a step that training really took.

    Args:
        steps: What `step_costs` gave.
        ledger: ledger.json.
        step_seconds: Of one training step, measured.
    """
    by_name = {step["step"]: step for step in steps}
    training, packing = ledger["training"], ledger["packing"]["train"]
    chips, price = ledger["hardware"]["chips"], ledger["price"]["usd_per_chip_hour"]
    saved = ledger["curation_saved"]
    unpacked = training["steps"] * (packing["segments"] / packing["rows"] - 1)
    if saved["steps_fixed"]:  # the same number of steps, whatever the rows hold
        unpacked = 0.0
    lines = []
    for name, steps_saved in (("Curator", saved["steps"]), ("Packer", unpacked)):
        cost = by_name.get(name)
        if cost is None:
            continue
        hours = steps_saved * step_seconds * chips / SECONDS_PER_HOUR
        gain = compute_usd(hours, price)
        paid = cost["usd"] if cost["usd_in_this_run"] is None else cost["usd_in_this_run"]
        lines.append(
            {
                "step": name,
                "cost_chip_hours": cost["chip_hours"],
                "cost_usd": cost["usd"],
                "cost_usd_in_this_run": paid,
                "saved_training_steps": steps_saved,
                "saved_chip_hours": hours,
                "saved_usd": gain,
                "saved_over_cost": gain / cost["usd"] if cost["usd"] else None,
                "by_reason": _by_reason(saved, hours, gain) if name == "Curator" else {},
            }
        )
    return lines


def _by_reason(saved: Mapping[str, Any], hours: float, gain: float) -> dict[str, Any]:
    total = saved["bytes"]
    return {
        reason: {
            "documents": part["documents"],
            "tokens_estimated": part["tokens_estimated"],
            "saved_chip_hours": hours * part["bytes"] / total,
            "saved_usd": gain * part["bytes"] / total,
        }
        for reason, part in saved["by_reason"].items()
        if total
    }
