"""CostReport: after evaluation, the estimate against what happened."""

import os
from typing import ClassVar

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec, standard_artifacts

from components import artifacts
from components.artifacts import (
    Calibration,
    DroppedDocuments,
    Ledger,
    PackedRows,
    QualityModel,
    Quarantine,
    Tokenizer,
    ValidationDecision,
)
from components.cost_report.report import build_cost_report
from components.cost_report.steps import StepTime
from tokenmill.contracts.base import read_document
from tokenmill.contracts.cost_report import CostReport as CostReportDocument
from tokenmill.contracts.cost_report import write_cost_report
from tokenmill.contracts.evaluation import read_baseline_check, summarize
from tokenmill.contracts.ledger import read_ledger
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME, TokenizerDescription
from tokenmill.contracts.training import read_telemetry
from tokenmill.timing import STEP_RUN, STEP_SECONDS, STEP_VCPUS, timed

# Which step made each input: their artifacts say what they took.
STEP_OF_INPUT = {
    "quarantine": "CorpusExampleGen",
    "statistics": "StatisticsGen",
    "decision": "AnomalyGate",
    "quality_model": "QualityTrainer",
    "dropped": "Curator",
    "tokenizer": "TokenizerTrainer",
    "transform_graph": "Transform",
    "packed_rows": "Packer",
    "calibration": "Calibrator",
    "ledger": "TokenLedger",
    "model_run": "Trainer",
    "evaluation": "Evaluator",
}


class CostReportSpec(component_spec.ComponentSpec):
    """Ledger, telemetry and evaluation in, and an artifact of each step; the report out."""

    PARAMETERS: ClassVar[dict] = {}
    INPUTS = {
        "ledger": component_spec.ChannelParameter(type=Ledger),
        "packed_rows": component_spec.ChannelParameter(type=PackedRows),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "quarantine": component_spec.ChannelParameter(type=Quarantine, optional=True),
        "statistics": component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
        "decision": component_spec.ChannelParameter(type=ValidationDecision, optional=True),
        "quality_model": component_spec.ChannelParameter(type=QualityModel, optional=True),
        "dropped": component_spec.ChannelParameter(type=DroppedDocuments, optional=True),
        "tokenizer": component_spec.ChannelParameter(type=Tokenizer, optional=True),
        "transform_graph": component_spec.ChannelParameter(
            type=standard_artifacts.TransformGraph, optional=True
        ),
        "calibration": component_spec.ChannelParameter(type=Calibration, optional=True),
    }
    OUTPUTS = {"cost_report": component_spec.ChannelParameter(type=artifacts.CostReport)}


class CostReportExecutor(base_executor.BaseExecutor):
    """Compares the estimate with what happened."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write cost_report.json."""
        self._log_startup(input_dict, output_dict, exec_properties)
        uris = {
            key: artifact_utils.get_single_uri(value) for key, value in input_dict.items() if value
        }
        cost_report = artifact_utils.get_single_instance(output_dict["cost_report"])
        report = build_cost_report(
            read_ledger(uris["ledger"]),
            read_telemetry(uris["model_run"]),
            summarize(uris["evaluation"]),
            read_baseline_check(uris["evaluation"]).baseline,
            _step_times(input_dict, self._context.pipeline_run_id if self._context else None),
            _lossy_fraction(uris),
        )
        write_cost_report(cost_report.uri, report)
        for name, value in headline(report).items():
            cost_report.set_float_custom_property(name, float(value))


def _lossy_fraction(uris: dict[str, str]) -> float:
    if "tokenizer" not in uris:
        return 0.0
    path = os.path.join(uris["tokenizer"], DESCRIPTION_NAME)
    return read_document(path, TokenizerDescription).lossy_fraction


def headline(report: CostReportDocument) -> dict[str, float]:
    """Return the numbers that runs are compared by, for custom properties of the artifact."""
    actual = report.actual
    curator = next((r for r in report.return_on_curation if r.step == "Curator"), None)
    return {
        "chip_hours": actual.chip_hours,
        "compute_usd": actual.compute_usd,
        "training_seconds": actual.training_seconds,
        "total_seconds": actual.total_seconds,
        **({} if actual.mfu is None else {"mfu": actual.mfu}),
        "goodput": actual.goodput,
        "usd_per_million_effective_tokens": actual.usd_per_million_effective_tokens,
        "training_seconds_actual_over_estimated": report.training_seconds_actual_over_estimated,
        "pipeline_usd": report.pipeline.usd,
        "curation_cost_usd": curator.cost_usd if curator else 0.0,
        "curation_saved_usd": curator.saved_usd if curator else 0.0,
        **_quality(report.quality.evaluation.total),
    }


def _quality(total: dict[str, float]) -> dict[str, float]:
    """Return the measure of the run's task."""
    names = ("bits_per_byte", "masked_perplexity", "accuracy")
    return {name: total[name] for name in names if name in total}


def _step_times(input_dict: dict, run_id: str | None) -> list[StepTime]:
    times = []
    for key, step in STEP_OF_INPUT.items():
        for artifact in input_dict.get(key) or []:
            if not artifact.has_custom_property(STEP_SECONDS):
                continue
            made_by = artifact.get_string_custom_property(STEP_RUN)
            times.append(
                StepTime(
                    step=step,
                    seconds=artifact.get_float_custom_property(STEP_SECONDS),
                    vcpus=artifact.get_int_custom_property(STEP_VCPUS),
                    ran=made_by == run_id if made_by and run_id else None,
                )
            )
    return times


class CostReport(base_component.BaseComponent):
    """Compares the estimate with what the run took.

    Outputs:
        cost_report: `CostReport`, cost_report.json.

    Args:
        ledger: Channel of `Ledger`.
        packed_rows: Channel of `PackedRows`, for the time that packing took.
        model_run: Channel of the trainer's `ModelRun`.
        evaluation: Channel of the Evaluator's `ModelEvaluation`.
        others: Channels of the other keys of `STEP_OF_INPUT`, for the time that their steps took;
            None or left out where there is no such step.
    """

    SPEC_CLASS = CostReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CostReportExecutor)

    def __init__(
        self,
        ledger: Channel,
        packed_rows: Channel,
        model_run: Channel,
        evaluation: Channel,
        **others: Channel | None,
    ):
        spec = CostReportSpec(
            ledger=ledger,
            packed_rows=packed_rows,
            model_run=model_run,
            evaluation=evaluation,
            cost_report=Channel(type=artifacts.CostReport),
            **{key: channel for key, channel in others.items() if channel is not None},
        )
        super().__init__(spec=spec)
