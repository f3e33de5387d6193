"""TokenLedger: counts, estimates, and stops a run that is too dear."""

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import (
    Calibration,
    DroppedDocuments,
    Examples,
    Ledger,
    PackedRows,
    Quarantine,
)
from components.ledger.budget import check_budget
from components.ledger.config import LedgerJob
from components.ledger.ledger import Machine, build_ledger
from tokenmill.contracts.calibration import read_calibration
from tokenmill.contracts.curation import read_curation
from tokenmill.contracts.ingest import read_ingest_counts
from tokenmill.contracts.ledger import Ledger as LedgerDocument
from tokenmill.contracts.ledger import write_ledger
from tokenmill.contracts.packed_rows import read_packed_manifest
from tokenmill.contracts.training_limits import write_limits
from tokenmill.cost.device_benchmark import measure_matmul_flops_per_second
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.errors import TokenmillError
from tokenmill.machine import memory_bytes
from tokenmill.provenance.document_index import write_index
from tokenmill.records.splits import SPLITS
from tokenmill.run_parameters import LEDGER_PARAMETERS, given_parameters
from tokenmill.timing import timed


class TokenLedgerSpec(component_spec.ComponentSpec):
    """The counts of ingest, curation and packing in; the ledger out."""

    PARAMETERS = {
        "config": component_spec.ExecutionParameter(type=str),
        "limits_path": component_spec.ExecutionParameter(type=str),
        **{
            name: component_spec.ExecutionParameter(type=kind, optional=True)
            for name, kind in LEDGER_PARAMETERS.items()
        },
    }
    INPUTS = {
        "quarantine": component_spec.ChannelParameter(type=Quarantine),
        "curated_examples": component_spec.ChannelParameter(type=Examples),
        "dropped": component_spec.ChannelParameter(type=DroppedDocuments),
        "packed_rows": component_spec.ChannelParameter(type=PackedRows),
        "calibration": component_spec.ChannelParameter(type=Calibration, optional=True),
    }
    OUTPUTS = {"ledger": component_spec.ChannelParameter(type=Ledger)}


class TokenLedgerExecutor(base_executor.BaseExecutor):
    """Joins the counts; of the documents it reads the ids only, for the index."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write ledger.json and the index.

        Raises:
            TokenmillError: The run is over its budget.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        uris = {
            key: artifact_utils.get_single_uri(value) for key, value in input_dict.items() if value
        }
        ledger_artifact = artifact_utils.get_single_instance(output_dict["ledger"])
        given = given_parameters(exec_properties, LEDGER_PARAMETERS)
        settings = LedgerJob.from_json(exec_properties["config"]).with_parameters(given)
        packed = {split: read_packed_manifest(uris["packed_rows"], split) for split in SPLITS}
        machine = _machine(settings, uris.get("calibration"))
        ledger = build_ledger(
            read_ingest_counts(uris["quarantine"]),
            read_curation(uris["dropped"]),
            packed,
            settings,
            machine,
        )
        write_ledger(ledger_artifact.uri, ledger)
        for name, value in headline(ledger).items():
            ledger_artifact.set_float_custom_property(name, float(value))
        check_budget(ledger, packed, settings, machine)
        if given:
            write_limits(exec_properties["limits_path"], settings.training_limits)
        write_index(
            ledger_artifact.uri, uris["curated_examples"], uris["dropped"], uris["quarantine"]
        )


def headline(ledger: LedgerDocument) -> dict[str, float]:
    """Return the numbers that runs are compared by, for custom properties of the artifact."""
    training, cost = ledger.training, ledger.cost
    return {
        "effective_tokens": training.effective_tokens,
        "loss_tokens": training.loss_tokens,
        "epochs": training.epochs,
        "params_total": ledger.model.params_total,
        "params_active": ledger.model.params_active or ledger.model.params_total,
        "total_flops": ledger.flops.total_exact,
        "mfu": ledger.hardware.mfu,
        "chip_hours": cost.chip_hours,
        "wall_seconds": cost.wall_seconds,
        "compute_usd": cost.compute_usd,
        "usd_per_million_effective_tokens": cost.usd_per_million_effective_tokens,
        "curation_saved_usd": ledger.curation_saved.usd,
        "expected_loss": ledger.guidance.expected_loss.nats_per_token,
    }


def _machine(settings: LedgerJob, calibration_uri: str | None) -> Machine:
    calibration = None
    if calibration_uri is not None:
        calibration = read_calibration(calibration_uri)
    peak = settings.peak_flops_per_second_per_chip
    memory: float | None = settings.memory_bytes_per_chip
    if settings.chip == CPU_CHIP:
        memory = memory or memory_bytes() // -(-settings.workers // settings.machines)
        if calibration is not None:
            memory = calibration.memory_bytes
    if peak is None:  # a CPU: what this machine does, over its cores
        if calibration is not None and calibration.peak_flops_per_second is not None:
            peak = calibration.peak_flops_per_second / settings.chips
        else:
            # Of the chips those of this machine were timed.
            peak = measure_matmul_flops_per_second() * settings.machines / settings.chips
    elif calibration and calibration.achieved_flops_per_second > peak * settings.chips:
        achieved = calibration.achieved_flops_per_second / settings.chips
        raise TokenmillError(
            f"cost.peak_flops_per_second_per_chip = {peak:g}, but training reached {achieved:g} "
            f"on each of {settings.chips} chips: no chip does more than its peak.",
            "Correct the peak (FLOP/s, not TFLOP/s) or cost.chips.",
        )
    return Machine(
        peak_flops_per_second_per_chip=peak,
        memory_bytes_per_device=memory,
        calibration=calibration,
    )


class TokenLedger(base_component.BaseComponent):
    """The token and cost ledger, and the budget gate.

    Outputs:
        ledger: `Ledger`: ledger.json, and the index of documents; the main numbers are custom
            properties too.

    Args:
        quarantine: Channel of `Quarantine`.
        curated_examples: Channel of the curator's `Examples`.
        dropped: Channel of `DroppedDocuments`.
        packed_rows: Channel of `PackedRows`.
        job: What is to be trained, on what, at what price.
        limits_path: Where price and budget of a run with parameters of its own are left for the
            Trainer.
        calibration: Channel of `Calibration`; None where MFU is not measured.
    """

    SPEC_CLASS = TokenLedgerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(TokenLedgerExecutor)

    def __init__(
        self,
        quarantine: Channel,
        curated_examples: Channel,
        dropped: Channel,
        packed_rows: Channel,
        job: LedgerJob,
        limits_path: str,
        calibration: Channel | None = None,
    ):
        inputs = {} if calibration is None else {"calibration": calibration}
        spec = TokenLedgerSpec(
            quarantine=quarantine,
            curated_examples=curated_examples,
            dropped=dropped,
            packed_rows=packed_rows,
            config=job.to_json(),
            limits_path=limits_path,
            ledger=Channel(type=Ledger),
            **inputs,
        )
        super().__init__(spec=spec)
