"""cost_report.json, the estimate against what happened: every key with its unit and meaning."""

from __future__ import annotations

import os

from pydantic import ConfigDict, Field

from tokenmill.contracts.base import Document, Number, Part, key, read_document, write_document
from tokenmill.contracts.benchmark import BenchmarkTaskResult
from tokenmill.contracts.training import Losses, Pruning

COST_REPORT_NAME = "cost_report.json"
COST_REPORT_SCHEMA = "tokenmill-cost-report-3"

Metrics = dict[str, float]
"""The Evaluator's values by name; one that is not a finite number is absent."""


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


class Sent(Part):
    """Bytes that a device sends to the others in a step, as rings do it."""

    estimated_bytes: int = key("By the ledger's formula, for its number of devices.", ge=0)
    actual_bytes: int = key(
        "Of what a replica handed to collectives, counted where the step was traced.", ge=0
    )
    estimated_devices: int = key("Devices of the formula.", ge=1)
    replicas: int = key("Devices that trained.", ge=1)

    @property
    def ratio(self) -> float | None:
        """Actual over estimated; None where they are of different numbers of devices, or of one."""
        if not self.estimated_bytes or self.estimated_devices != self.replicas:
            return None
        return self.actual_bytes / self.estimated_bytes


class PhaseTime(Part):
    """One phase of the trainer."""

    phase: str = key("steps, compile, evaluate_before, ..; other is time in no phase.")
    forecast_seconds: float | None = key("Seconds; null where none was forecast.")
    actual_seconds: float = key("Seconds.")
    cpu_seconds: float | None = key(
        "CPU seconds of the chief's process, as the timer has the phase; null if not measured.",
        default=None,
    )
    share: float = key("Of the trainer's time, a fraction.")


class Reason(Part):
    """Why the trainer's time differs from the forecast; the seconds add up to the difference."""

    reason: str = key(
        "tokens, mfu, busy (other cores than at calibration for the same CPU time), or a phase."
    )
    meaning: str = key("The same in words.")
    seconds: float = key("Actual less forecast, seconds.")
    usd: float = key("The same in USD.")


class StepCost(Part):
    """One step of the pipeline."""

    step: str = key("Node of the pipeline.")
    seconds: float = key("Wall time when it ran, seconds.", ge=0)
    chips: int = key("Cores, or the trainer's chips.", ge=1)
    chip_hours: float = key("Core-hours or chip-hours.", ge=0)
    usd: float = key("At the price of a core or a chip.", ge=0)
    ran_in_this_run: bool | None = key("False if it came from the cache; null if unknown.")
    usd_in_this_run: float | None = key("0 if it came from the cache; null if unknown.")


class PipelineCost(Part):
    """Sums over the steps whose time is known."""

    seconds: float = key("Sum of wall times, seconds.", ge=0)
    chip_hours: float = key("Core-hours and chip-hours.", ge=0)
    usd: float = key("USD.", ge=0)
    usd_in_this_run: float | None = key("Without cached steps, USD; null if unknown.")


class ReturnByReason(Part):
    """A share of what curation saved."""

    documents: int = key("Dropped from the training split.", ge=0)
    tokens_estimated: float = key("Their tokens.", ge=0)
    saved_chip_hours: float = key("Chip-hours.", ge=0)
    saved_usd: float = key("USD.", ge=0)


class StepReturn(Part):
    """A step's own cost beside the training that it avoided."""

    step: str = key("Curator (dropped text) or Packer (against one part of a document a row).")
    cost_chip_hours: float = key("When it ran, core-hours.", ge=0)
    cost_usd: float = key("When it ran, USD.", ge=0)
    cost_usd_in_this_run: float = key("0 if it came from the cache, USD.", ge=0)
    saved_training_steps: Number = key("Optimizer steps avoided.", ge=0)
    saved_chip_hours: float = key("At the measured seconds a step.", ge=0)
    saved_usd: float = key("At the run's price.", ge=0)
    saved_over_cost: float | None = key("Ratio; null where the step cost nothing.")
    by_reason: dict[str, ReturnByReason] = key("Of the Curator, by drop reason (by bytes).")
    measured_bits_per_byte: float | None = key(
        "Of the Curator with cost.value: by how much the loss is lower than with the text that it "
        "was compared with, at equal tokens; null without.",
        default=None,
    )
    measured_saved_usd: float | None = key(
        "What training on that text would cost more for the same loss, at what training really "
        "cost, USD; below 0 less; null where it could not be measured.",
        default=None,
    )


FORGETTING_MEASURES = ("bits_per_byte", "masked_perplexity")
"""What forgetting is measured by, of causal-lm and of masked-lm."""


class Forgetting(Part):
    """What the base model and the trained one get on a general text (evaluate.forgetting_input)."""

    documents: int = key("Documents of the general text.", ge=0)
    bytes: int = key("Their bytes.", ge=0)
    before: Metrics = key(
        "The base model's; empty where it lacks the head of the task, which was random then."
    )
    after: Metrics = key("The trained model's, by the same computation.")

    @property
    def increase(self) -> float | None:
        """By what share the task's measure grew: bits per byte, or masked perplexity.

        None where either could not be measured.
        """
        for name in FORGETTING_MEASURES:
            if name in self.before and name in self.after:
                return self.after[name] / self.before[name] - 1
        return None


class CalibrationBin(Part):
    """First guesses of about one confidence: how sure the model was, and how often right."""

    low: float = key("Least probability of the bin.", ge=0, le=1)
    high: float = key("Where the next bin begins.", ge=0, le=1)
    count: int = key("First guesses in it: tokens; of a classifier documents.", gt=0)
    confidence: float = key("Their mean probability.", ge=0, le=1)
    accuracy: float = key("Share of them that is right.", ge=0, le=1)


class EvaluationSummary(Part):
    """Metrics of the evaluation split, and what kept the model from being blessed."""

    total: Metrics = key("Metrics of all documents.")
    by_source: dict[str, Metrics] = key("The same by source.")
    by_length: dict[str, Metrics] = key("The same by length of the document.")
    by_language: dict[str, Metrics] = key("The same by language (ISO 639; und: not known).")
    failures: list[str] = key("A sentence for each threshold that was missed; empty if blessed.")
    forgetting: Forgetting | None = key(
        "The general text; null where none was given.", default=None
    )
    calibration: list[CalibrationBin] = key(
        "Bins of confidence of all documents that hold a guess, the least sure first.", default=[]
    )
    benchmarks: dict[str, BenchmarkTaskResult] = key(
        "Benchmark tasks (evaluate.benchmarks), by name; empty where none were asked for.",
        default={},
    )
    few_documents: list[str] = Field(
        [], description="Slices of fewer than 30 documents: one of them may turn their numbers."
    )


class Quality(Part):
    """Quality of the model before and after training, in the measures of its task."""

    eval_before: Losses = key("The trainer's losses before the first step.")
    eval_after: Losses = key("The same after the last step.")
    base_model: str | None = key(
        "Where the weights before training are from; null for random ones.", default=None
    )
    pruning: Pruning | None = key("Magnitude pruning; null where nothing was pruned.", default=None)
    evaluation: EvaluationSummary = key("Of the pushed model, from raw text.")
    lossy_fraction: float = key(
        "Share of documents whose text does not come back from their tokens (`lossy_fraction` of "
        "tokenizer.json): above 0, bits per byte are of less than the text.",
        default=0.0,
        ge=0,
        le=1,
    )
    unigram_bits_per_byte: float | None = Field(
        None, description="Baseline of causal-lm: frequencies of tokens."
    )
    unigram_perplexity: float | None = Field(
        None, description="Baseline of masked-lm: the same, by hidden token."
    )
    prior_log_loss: float | None = Field(
        None, description="Baseline of classification: the classes' shares, nats a document."
    )
    majority_accuracy: float | None = Field(
        None, description="Baseline of classification: the most frequent class, a fraction."
    )


class CostReport(Document):
    """cost_report.json: the estimate against what happened."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), title="cost_report.json")
    schema_: str = Field(alias="schema", description="Name and version of this format.")
    estimated: Side
    actual: Side
    training_seconds_actual_over_estimated: float = key("Ratio.", ge=0)
    phases: list[PhaseTime]
    reasons: list[Reason]
    steps: list[StepCost]
    pipeline: PipelineCost
    return_on_curation: list[StepReturn]
    quality: Quality
    sent: Sent | None = key("What a device sends in a step; null of a single device.", default=None)
    effective_tokens: float = key("As in the ledger.", ge=0)
    trained_loss_tokens: int = key(
        "Tokens that training computed a loss of, counted; of a classifier documents.",
        default=0,
        ge=0,
    )


def read_cost_report(uri: str) -> CostReport:
    """Read cost_report.json of a CostReport artifact."""
    return read_document(os.path.join(uri, COST_REPORT_NAME), CostReport)


def write_cost_report(uri: str, report: CostReport) -> None:
    """Write cost_report.json into a CostReport artifact."""
    write_document(os.path.join(uri, COST_REPORT_NAME), report)
