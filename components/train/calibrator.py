"""Calibrator: times the training step on the machine at hand, before the ledger estimates.

Beside the Trainer, since it runs the Trainer's own loop.
"""

import json

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import Calibration, PackedRows
from components.train.config import TrainingJob
from components.train.subprocess_entry import OUT_OF_MEMORY_HINT, calibrate_in_subprocess
from tokenmill.contracts.calibration import Calibration as CalibrationDocument
from tokenmill.contracts.calibration import write_calibration
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.run_in_subprocess import run_in_subprocess
from tokenmill.timing import timed


class CalibratorSpec(component_spec.ComponentSpec):
    """Packed rows in, the machine's speed out."""

    PARAMETERS = {
        "job": component_spec.ExecutionParameter(type=str),
        "chip": component_spec.ExecutionParameter(type=str),
        "chips": component_spec.ExecutionParameter(type=int),
        "samples": component_spec.ExecutionParameter(type=int),
    }
    INPUTS = {"packed_rows": component_spec.ChannelParameter(type=PackedRows)}
    OUTPUTS = {"calibration": component_spec.ChannelParameter(type=Calibration)}


class CalibratorExecutor(base_executor.BaseExecutor):
    """Runs the training loop for some seconds, in a process like the Trainer's."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write calibration.json."""
        self._log_startup(input_dict, output_dict, exec_properties)
        rows = artifact_utils.get_single_instance(input_dict["packed_rows"])
        artifact = artifact_utils.get_single_instance(output_dict["calibration"])
        calibration = CalibrationDocument.model_validate(
            run_in_subprocess(
                calibrate_in_subprocess,
                "the training process",
                OUT_OF_MEMORY_HINT,
                job=json.loads(exec_properties["job"]),
                rows_uri=rows.uri,
                on_cpu=exec_properties["chip"] == CPU_CHIP,
                samples=exec_properties["samples"],
            )
        )
        write_calibration(artifact.uri, calibration)
        for name in ("tokens_per_second", "achieved_flops_per_second", "compile_seconds"):
            artifact.set_float_custom_property(name, getattr(calibration, name))


class Calibrator(base_component.BaseComponent):
    """Times the true training step on the machine at hand.

    A step of its own, so that a new price does not measure again, and so that in a cluster it can
    run where the accelerator is while the ledger runs anywhere.

    Outputs:
        calibration: `Calibration`, calibration.json.

    Args:
        packed_rows: Channel of `PackedRows`.
        job: What the Trainer will be told.
        chip: Slug of the chip; `cpu-vcpu` for this machine's cores.
        chips: How many.
        samples: `execution.samples`: held-out texts that the Trainer will continue.
    """

    SPEC_CLASS = CalibratorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CalibratorExecutor)

    def __init__(self, packed_rows: Channel, job: TrainingJob, chip: str, chips: int, samples: int):
        # How long training goes on does not change how fast it goes.
        one_epoch = job.with_parameters({"epochs": 1.0, "max_steps": None})
        spec = CalibratorSpec(
            packed_rows=packed_rows,
            job=one_epoch.to_json(),
            chip=chip,
            chips=chips,
            samples=samples,
            calibration=Channel(type=Calibration),
        )
        super().__init__(spec=spec)
