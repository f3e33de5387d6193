"""CostReport: after evaluation, the estimate against what happened."""

import os
from typing import ClassVar

import numpy as np
import tensorflow as tf
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec, standard_artifacts

from components.artifacts import CostSettlement, Ledger, PackedRows
from components.documents import read_json, split_directory, write_json
from components.evaluate.results import summarise
from components.evaluate.unigram import unigram_bits_per_byte
from components.ledger.component import LEDGER_NAME
from components.pack.rows import MANIFEST_NAME
from components.settle.report import build_cost_report
from components.train.run import TELEMETRY_NAME

REPORT_NAME = "cost_report.json"


class CostReportSpec(component_spec.ComponentSpec):
    """Ledger, telemetry and evaluation in; the report out."""

    PARAMETERS: ClassVar[dict] = {}
    INPUTS = {
        "ledger": component_spec.ChannelParameter(type=Ledger),
        "packed_rows": component_spec.ChannelParameter(type=PackedRows),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS = {"settlement": component_spec.ChannelParameter(type=CostSettlement)}


class CostReportExecutor(base_executor.BaseExecutor):
    """Joins the three accounts."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Writes cost_report.json."""
        self._log_startup(input_dict, output_dict, exec_properties)
        uris = {key: artifact_utils.get_single_uri(value) for key, value in input_dict.items()}
        settlement = artifact_utils.get_single_instance(output_dict["settlement"])
        held_out = split_directory(uris["packed_rows"], "eval")
        report = build_cost_report(
            read_json(os.path.join(uris["ledger"], LEDGER_NAME)),
            read_json(os.path.join(uris["model_run"], TELEMETRY_NAME)),
            summarise(uris["evaluation"]),
            unigram_bits_per_byte(
                _read_counts(split_directory(uris["packed_rows"], "train")),
                _read_counts(held_out),
                read_json(os.path.join(held_out, MANIFEST_NAME))["bytes"],
            ),
        )
        write_json(os.path.join(settlement.uri, REPORT_NAME), report)
        for name in ("chip_hours", "compute_usd", "training_seconds"):
            settlement.set_float_custom_property(name, report["actual"][name])


def _read_counts(directory: str) -> np.ndarray:
    with tf.io.gfile.GFile(os.path.join(directory, "target_counts.npy"), "rb") as source:
        return np.load(source)


class CostReport(base_component.BaseComponent):
    """Settles the bill.

    Outputs:
        settlement: `CostSettlement`, cost_report.json.

    Args:
        ledger: Channel of `Ledger`.
        packed_rows: Channel of `PackedRows`, for the unigram baseline.
        model_run: Channel of the trainer's `ModelRun`.
        evaluation: Channel of the Evaluator's `ModelEvaluation`.
    """

    SPEC_CLASS = CostReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CostReportExecutor)

    def __init__(
        self, ledger: Channel, packed_rows: Channel, model_run: Channel, evaluation: Channel
    ):
        spec = CostReportSpec(
            ledger=ledger,
            packed_rows=packed_rows,
            model_run=model_run,
            evaluation=evaluation,
            settlement=Channel(type=CostSettlement),
        )
        super().__init__(spec=spec)
