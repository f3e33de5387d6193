"""The schema of cost_report.json: every key with its unit and meaning."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from tokenmill.contracts.base import Number, Part, key


class Side(Part):
    """One side of the comparison."""

    slots: int = key("Positions computed, padding included.", ge=0)
    training_seconds: float = key("Steps, waiting for input and compilation, seconds.", ge=0)
    total_seconds: float = key("The whole trainer, seconds.", ge=0)
    total_flops: float = key("Exact model FLOPs.", ge=0)
    mfu: float | None = key("Of the steps, a fraction; null after a single step.")
    goodput: float = key("Steps over the whole trainer, a fraction.")
    chip_hours: float = key("Of the trainer.", ge=0)
    compute_usd: float = key("Chip-hours x price, USD.", ge=0)
    usd_per_million_effective_tokens: float = key("USD.", ge=0)


class Phase(Part):
    """One phase of the trainer."""

    phase: str = key("steps, compile, evaluate_before, ..; other is time in no phase.")
    forecast_seconds: float | None = key("Seconds; null where none was forecast.")
    actual_seconds: float = key("Seconds.")
    share: float = key("Of the trainer's time, a fraction.")


class Reason(Part):
    """Why the trainer's time differs from the forecast; the seconds add up to the difference."""

    reason: str = key("tokens, mfu, or a phase.")
    meaning: str = key("The same in words.")
    seconds: float = key("Actual less forecast, seconds.")
    usd: float = key("The same in USD.")


class Step(Part):
    """One step of the pipeline."""

    step: str = key("Node of the pipeline.")
    seconds: float = key("Wall time when it ran, seconds.", ge=0)
    chips: int = key("Cores, or the trainer's chips.", ge=1)
    chip_hours: float = key("Core-hours or chip-hours.", ge=0)
    usd: float = key("At the price of a core or a chip.", ge=0)
    ran_in_this_run: bool | None = key("False if it came from the cache; null if unknown.")
    usd_in_this_run: float | None = key("0 if it came from the cache; null if unknown.")


class Pipeline(Part):
    """All steps whose time is known."""

    seconds: float = key("Sum of wall times, seconds.", ge=0)
    chip_hours: float = key("Core-hours and chip-hours.", ge=0)
    usd: float = key("USD.", ge=0)
    usd_in_this_run: float | None = key("Without cached steps, USD; null if unknown.")


class SavedReason(Part):
    """A share of what curation saved."""

    documents: int = key("Dropped from the training split.", ge=0)
    tokens_estimated: float = key("Their tokens.", ge=0)
    saved_chip_hours: float = key("Chip-hours.", ge=0)
    saved_usd: float = key("USD.", ge=0)


class Return(Part):
    """A step's own cost beside the training that it avoided."""

    step: str = key("Curator (dropped text) or Packer (against one piece of a document a row).")
    cost_chip_hours: float = key("When it ran, core-hours.", ge=0)
    cost_usd: float = key("When it ran, USD.", ge=0)
    cost_usd_in_this_run: float = key("0 if it came from the cache, USD.", ge=0)
    saved_training_steps: Number = key("Optimizer steps avoided.", ge=0)
    saved_chip_hours: float = key("At the measured seconds a step.", ge=0)
    saved_usd: float = key("At the run's price.", ge=0)
    saved_over_cost: float | None = key("Ratio; null where the step cost nothing.")
    by_reason: dict[str, SavedReason] = key("Of the Curator, by drop reason (by bytes).")


class CostReportDocument(Part):
    """cost_report.json: the estimate against what happened."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), title="cost_report.json")
    schema_: str = Field(alias="schema", description="Name and version of this format.")
    estimated: Side
    actual: Side
    training_seconds_actual_over_estimated: float = key("Ratio.", ge=0)
    phases: list[Phase]
    reasons: list[Reason]
    steps: list[Step]
    pipeline: Pipeline
    return_on_curation: list[Return]
    quality: dict[str, Any] = key(
        "held_out_before and _after (the trainer's losses), evaluation (the pushed model, from raw "
        "text) and a baseline: unigram_bits_per_byte, or unigram_perplexity of masked-lm, or "
        "majority_accuracy and prior_log_loss of classification."
    )
    effective_tokens: float = key("As in the ledger.", ge=0)


def check_cost_report(report: dict[str, Any]) -> None:
    """Raises unless a report has exactly the keys and types of the schema.

    Raises:
        pydantic.ValidationError: A bug; the message names the key.
    """
    CostReportDocument.model_validate(report)
