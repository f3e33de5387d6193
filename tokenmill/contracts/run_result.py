"""What `tokenmill run --json` prints: every key with its unit and meaning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tokenmill.contracts.base import Document, Part, key
from tokenmill.contracts.cost_report import Metrics, Side

RESULT_SCHEMA = "tokenmill-run-1"

Outcome = Literal[
    "pushed", "not_blessed", "estimated", "over_budget", "failed", "stopped", "interrupted"
]


class StepResult(Part):
    """A step that was begun."""

    step: str = key("Name of the step.")
    seconds: float = key("From its start to its end, seconds.", ge=0)
    cached: bool = key("Whether its outputs are an earlier run's.")
    ended: str = key("Empty if it finished, else why it did not.")
    summary: str = key("What it counted, in words.")


class ErrorResult(Part):
    """Why a run did not come to its end."""

    message: str = key("What happened.")
    hint: str = key("What to do about it; empty if there is nothing to say.")


class RunNumbers(Part):
    """The numbers of a run; report.json has all."""

    effective_tokens: float = key("Loss tokens, discounted for repetition.", ge=0)
    loss_tokens: float = key("Tokens that training was to compute a loss of.", ge=0)
    params_total: int = key("Parameters of the model.", ge=0)
    params_active: int | None = key(
        "Those that a token passes: all but the experts that it is not sent to; null where the "
        "ledger does not say.",
        ge=0,
        default=None,
    )
    estimated: Side = key("Before training.")
    actual: Side | None = key("After training; null where nothing was trained.")
    quality: Metrics | None = key(
        "Metrics of the held-out text by name; null where nothing was trained."
    )


class RunPaths(Part):
    """Where a run left what; null for what it did not come to. All are absolute."""

    directory: str | None = key("The run's directory of logs.")
    log: str | None = key("What the libraries said.")
    config: str | None = key("The whole configuration.")
    page: str | None = key("report.html.")
    report_text: str | None = key("report.txt: all tables.")
    report_json: str | None = key("report.json: all numbers.")
    model: str | None = key("The model that was pushed.")


class RunResult(Document):
    """The document on standard output."""

    schema_: str = Field(alias="schema", description="Name and version of this format.")
    outcome: Outcome = key(
        "pushed; not_blessed (trained, and worse than asked for); estimated (--estimate); "
        "over_budget (the ledger stopped it before training); stopped (by SIGTERM, or a worker was "
        "lost: the same command goes on); interrupted (Ctrl-C); failed."
    )
    exit_code: int = key("Of the process.")
    run_id: str | None = key("TFX's id of the run; null before its first step.")
    seconds: float = key("From the command to the end, seconds.", ge=0)
    steps: list[StepResult] = key("In their order.")
    numbers: RunNumbers | None = key("Null before the ledger.")
    failures: list[str] = key("A sentence for each threshold that the model missed.")
    warnings: list[str] = key("Sentences that a person has to see.")
    error: ErrorResult | None = key("Null for a run that came to its end.")
    paths: RunPaths
