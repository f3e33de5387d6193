"""What Trainer and Calibrator have done in a process of their own.

How many cores an operation may use, and tf.distribute's multi_worker, have to be set before
TensorFlow's first operation, and other steps of the pipeline have run operations in their process.
"""

from typing import Any

from components.train.calibrate import calibrate
from components.train.config import TrainingJob
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.run import train_and_export

OUT_OF_MEMORY_HINT = (
    "Run again: training continues from the last checkpoint. If nobody killed it, memory ran out: "
    "lower train.global_batch_size or raise train.accumulation_steps."
)


def train_in_subprocess(job: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Call `train_and_export` after dividing the cores; return its telemetry as JSON."""
    return train_and_export(_prepare(job), **arguments).to_json()


def calibrate_in_subprocess(job: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Call `calibrate` after dividing the cores; return its result as JSON."""
    return calibrate(_prepare(job), **arguments).to_json()


def _prepare(values: dict[str, Any]) -> TrainingJob:
    job = TrainingJob.model_validate(values)
    if job.train.strategy != "tpu":
        divide_cores()
    return job
