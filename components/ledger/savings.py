"""What curation saved: the training that dropped text would have cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.ledger.estimate import RunEstimate
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.rows.mixture import plan_steps


def curation_savings(
    curation: Mapping[str, Any],
    bytes_per_token: float,
    run: RunEstimate,
    *,
    settings_epochs: float,
    max_steps: int | None,
    rows_available: int | None,
    chips: int,
    price_usd_per_chip_hour: float,
) -> dict[str, Any]:
    """Compares the plan with the same plan on uncurated text.

    The dropped text of the training split would have made rows like the kept text does; the steps
    that those rows would have added, at the run's own seconds a step, are what curation saved.
    Where `train.max_steps` ends the run, curation saves nothing: the same steps see better text.

    Args:
        curation: curation.json.
        bytes_per_token: Of the kept text, for the estimate of tokens that nobody made.
        run: The estimate of the run as planned.
        settings_epochs: `train.epochs`.
        max_steps: `train.max_steps`.
        rows_available: What `pack.max_repetitions` leaves to read; None without a limit.
        chips: Number of chips.
        price_usd_per_chip_hour: USD.

    Returns:
        Tokens, chip-hours and USD avoided, in all and by reason (by share of the tokens).
    """
    by_reason: dict[str, dict[str, float]] = {}
    accounts = curation["splits"]["train"]["by_source"].values()
    for account in accounts:
        for reason, numbers in account["dropped"].items():
            entry = by_reason.setdefault(reason, {"documents": 0, "bytes": 0})
            for name in ("documents", "bytes"):
                entry[name] += numbers[name]
    kept_raw_bytes = sum(account["kept"]["raw_bytes"] for account in accounts)
    dropped_bytes = sum(entry["bytes"] for entry in by_reason.values())
    plan = run.plan
    share = dropped_bytes / kept_raw_bytes if kept_raw_bytes else 0.0
    if rows_available is not None:
        rows_available = max(rows_available, round(rows_available * (1 + share)))
    without = plan_steps(
        max(plan.rows, round(plan.rows * (1 + share))),
        plan.global_batch_size,
        settings_epochs,
        max_steps,
        rows_available,
    )
    steps_saved = without.steps - plan.steps
    seconds = run.seconds_by_phase["steps"] / plan.steps * steps_saved
    hours = seconds * chips / SECONDS_PER_HOUR
    for entry in by_reason.values():
        part = entry["bytes"] / dropped_bytes if dropped_bytes else 0.0
        entry["tokens_estimated"] = entry["bytes"] / bytes_per_token if bytes_per_token else 0.0
        entry["chip_hours"] = hours * part
        entry["usd"] = hours * part * price_usd_per_chip_hour
    return {
        "documents": sum(entry["documents"] for entry in by_reason.values()),
        "bytes": dropped_bytes,
        "tokens_estimated": sum(entry["tokens_estimated"] for entry in by_reason.values()),
        "planned_epochs": plan.epochs,
        "steps": steps_saved,
        "steps_fixed": max_steps is not None and plan.steps == max_steps,
        "chip_hours": hours,
        "usd": hours * price_usd_per_chip_hour,
        "by_reason": dict(sorted(by_reason.items())),
    }
