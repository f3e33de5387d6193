"""TokenLedger: counts effective tokens, estimates the cost, and can stop the run."""

import json
import os
from dataclasses import asdict

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import Ledger, PackedRows, Quarantine, RejectedDocuments
from components.curate.component import REPORT_NAME
from components.documents import SPLITS, read_json, split_directory, write_json
from components.ledger.ledger import LedgerSettings, build_ledger, check_budget
from components.ledger.machine import measure_matmul_flops_per_second
from components.pack.rows import MANIFEST_NAME

LEDGER_NAME = "ledger.json"


class TokenLedgerSpec(component_spec.ComponentSpec):
    """The counts of ingest, curation and packing in; the ledger out."""

    PARAMETERS = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "quarantine": component_spec.ChannelParameter(type=Quarantine),
        "rejected": component_spec.ChannelParameter(type=RejectedDocuments),
        "packed_rows": component_spec.ChannelParameter(type=PackedRows),
    }
    OUTPUTS = {"ledger": component_spec.ChannelParameter(type=Ledger)}


class TokenLedgerExecutor(base_executor.BaseExecutor):
    """Reads counts only; the data itself is not touched again."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Writes ledger.json; raises TokenmillError if the run is over its budget."""
        self._log_startup(input_dict, output_dict, exec_properties)
        quarantine = artifact_utils.get_single_instance(input_dict["quarantine"])
        rejected = artifact_utils.get_single_instance(input_dict["rejected"])
        packed = artifact_utils.get_single_instance(input_dict["packed_rows"])
        ledger_artifact = artifact_utils.get_single_instance(output_dict["ledger"])
        settings = LedgerSettings(**json.loads(exec_properties["settings"]))
        peak = settings.peak_flops_per_second_per_chip
        if peak is None:  # a CPU: what this machine does, over its cores
            peak = measure_matmul_flops_per_second() / settings.chips
        ledger = build_ledger(
            read_json(os.path.join(quarantine.uri, "counts.json")),
            read_json(os.path.join(rejected.uri, REPORT_NAME)),
            {
                split: read_json(os.path.join(split_directory(packed.uri, split), MANIFEST_NAME))
                for split in SPLITS
            },
            settings,
            peak,
        )
        write_json(os.path.join(ledger_artifact.uri, LEDGER_NAME), ledger)
        for name, value in (
            ("effective_tokens", ledger["training"]["effective_tokens"]),
            ("total_flops", ledger["flops"]["total_exact"]),
            ("chip_hours", ledger["cost"]["chip_hours"]),
            ("compute_usd", ledger["cost"]["compute_usd"]),
        ):
            ledger_artifact.set_float_custom_property(name, float(value))
        check_budget(ledger)


class TokenLedger(base_component.BaseComponent):
    """The token and cost ledger, and the budget gate.

    Outputs:
        ledger: `Ledger`, ledger.json; the main numbers are custom properties too.

    Args:
        quarantine: Channel of `Quarantine`.
        rejected: Channel of `RejectedDocuments`.
        packed_rows: Channel of `PackedRows`.
        settings: What is to be trained, on what, at what price.
    """

    SPEC_CLASS = TokenLedgerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(TokenLedgerExecutor)

    def __init__(
        self, quarantine: Channel, rejected: Channel, packed_rows: Channel, settings: LedgerSettings
    ):
        spec = TokenLedgerSpec(
            quarantine=quarantine,
            rejected=rejected,
            packed_rows=packed_rows,
            settings=json.dumps(asdict(settings), sort_keys=True),
            ledger=Channel(type=Ledger),
        )
        super().__init__(spec=spec)
