"""Collects the outcome of a run, its numbers and where things are: `tokenmill run --json`."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from pipeline.report.console import RunConsole
from tokenmill.contracts.run_result import (
    RESULT_SCHEMA,
    ErrorResult,
    Outcome,
    RunNumbers,
    RunPaths,
    RunResult,
    StepResult,
)
from tokenmill.errors import TokenmillError
from tokenmill.preemption import EXIT_FAILED, EXIT_INTERRUPTED

if TYPE_CHECKING:  # imports TFX's libraries, which a run that fails early does without
    from pipeline.report.run import RunReport


class ResultBuilder:
    """Collects what becomes of a run while it runs.

    Attributes:
        outcome: As far as it is known.
        run_id: TFX's id of the run.
        numbers: Of the report, once there is one.
        failures: Sentences for each threshold that was missed.
        error: Why the run did not come to its end.
        paths: Where things are.
    """

    def __init__(self) -> None:
        self.outcome: Outcome = "failed"
        self.run_id: str | None = None
        self.numbers: RunNumbers | None = None
        self.failures: list[str] = []
        self.error: ErrorResult | None = None
        self.paths = RunPaths(
            directory=None, log=None, config=None, page=None, report_text=None, report_json=None,
            model=None,
        )  # fmt: skip

    def left(self, name: str, path: str) -> None:
        """Remember where something was left.

        Args:
            name: A key of RunPaths.
            path: Where it is; what is not there is forgotten.
        """
        local = "://" not in path
        if not local or os.path.exists(path):
            setattr(self.paths, name, os.path.abspath(path) if local else path)

    def read_numbers(self, report: RunReport) -> None:
        """Take the numbers of a run's report."""
        from components.cost_report.report import estimated_side

        ledger, cost = report.ledger, report.cost_report
        self.numbers = RunNumbers(
            effective_tokens=ledger.training.effective_tokens,
            loss_tokens=ledger.training.loss_tokens,
            params_total=ledger.model.params_total,
            params_active=ledger.model.params_active,
            estimated=estimated_side(ledger) if cost is None else cost.estimated,
            actual=None if cost is None else cost.actual,
            quality=None if cost is None else cost.quality.evaluation.total,
        )
        self.failures = [] if cost is None else list(cost.quality.evaluation.failures)

    def result(self, screen: RunConsole, exit_code: int, seconds: float) -> RunResult:
        """Return the document.

        Args:
            screen: Has the steps and the notes that were shown or would have been.
            exit_code: Of the process.
            seconds: Since the command was given.
        """
        return RunResult(
            schema=RESULT_SCHEMA,
            outcome=self.outcome,
            exit_code=exit_code,
            run_id=self.run_id,
            seconds=seconds,
            steps=[
                StepResult(
                    step=step.name, seconds=step.seconds, cached=step.cached, ended=step.ended,
                    summary=step.summary,
                )
                for step in screen.steps
            ],
            numbers=self.numbers,
            failures=self.failures,
            warnings=screen.notes,
            error=self.error,
            paths=self.paths,
        )  # fmt: skip


def ended_before_start(outcome: Outcome, error: TokenmillError | None, seconds: float) -> RunResult:
    """Return the document of a run that ended before its first step.

    Args:
        outcome: What became of it.
        error: Why it failed; None if it was interrupted.
        seconds: Since the command was given.
    """
    builder = ResultBuilder()
    builder.outcome = outcome
    if error is not None:
        builder.error = ErrorResult(message=error.message, hint=error.hint)
    code = EXIT_INTERRUPTED if outcome == "interrupted" else EXIT_FAILED
    return builder.result(RunConsole(io.StringIO()), code, seconds)
