"""The training that dropped text would have cost: what curation saved."""

from __future__ import annotations

from components.ledger.estimate import RunEstimate
from tokenmill.contracts.curation import Curation
from tokenmill.contracts.ledger import Saved, SavedByReason
from tokenmill.contracts.training import Phase
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.rows.mixture import plan_steps


def curation_savings(
    curation: Curation,
    bytes_per_token: float,
    run: RunEstimate,
    *,
    epochs: float,
    max_steps: int | None,
    rows_available: int | None,
    chips: int,
    price_usd_per_chip_hour: float,
) -> Saved:
    """Compare the plan with the same plan on uncurated text.

    The dropped text of the training split would have made rows like the kept text does; the steps
    that those rows would have added, at the run's own seconds a step, are what curation saved.
    Where `train.max_steps` ends the run, curation saves nothing: the same steps see better text.

    Args:
        curation: curation.json.
        bytes_per_token: Bytes of kept text a token, to estimate the tokens that nobody made.
        run: The estimate of the run as planned.
        epochs: `train.epochs`.
        max_steps: `train.max_steps`.
        rows_available: What `pack.max_repetitions` leaves to read; None without a limit.
        chips: Number of chips.
        price_usd_per_chip_hour: USD.

    Returns:
        Tokens, chip-hours and USD avoided, in all and by reason (by share of the bytes).
    """
    dropped = curation.dropped_by_reason(split="train")
    dropped_bytes = sum(amount.bytes for amount in dropped.values())
    kept_raw_bytes = sum(
        account.kept.raw_bytes for account in curation.splits["train"].by_source.values()
    )
    plan = run.plan
    share = dropped_bytes / kept_raw_bytes if kept_raw_bytes else 0.0
    if rows_available is not None:
        rows_available = max(rows_available, round(rows_available * (1 + share)))
    uncurated = plan_steps(
        max(plan.rows, round(plan.rows * (1 + share))),
        plan.global_batch_size,
        epochs,
        max_steps,
        rows_available,
    )
    steps_saved = uncurated.steps - plan.steps
    hours = run.seconds_by_phase[Phase.STEPS] / plan.steps * steps_saved * chips / SECONDS_PER_HOUR
    by_reason = {}
    for reason, amount in dropped.items():
        part = amount.bytes / dropped_bytes if dropped_bytes else 0.0
        by_reason[reason] = SavedByReason(
            documents=amount.documents,
            bytes=amount.bytes,
            tokens_estimated=amount.bytes / bytes_per_token if bytes_per_token else 0.0,
            chip_hours=hours * part,
            usd=hours * part * price_usd_per_chip_hour,
        )
    return Saved(
        documents=sum(amount.documents for amount in dropped.values()),
        bytes=dropped_bytes,
        tokens_estimated=sum(saved.tokens_estimated for saved in by_reason.values()),
        planned_epochs=plan.epochs,
        steps=steps_saved,
        steps_fixed=max_steps is not None and plan.steps == max_steps,
        chip_hours=hours,
        usd=hours * price_usd_per_chip_hour,
        by_reason=by_reason,
    )
