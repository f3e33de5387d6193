"""What Trainer and Calibrator have done in a process of their own.

How many cores an operation may use, and tf.distribute's multi_worker, have to be set before
TensorFlow's first operation, and other steps of the pipeline have run operations in their process.
"""

from typing import Any

from components.train.calibrate import calibrate
from components.train.config import TrainingJob
from components.train.distributed.cluster import place_in_cluster
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.distributed.rendezvous import wait_for_chief
from components.train.execution import read_execution
from components.train.run import train, train_and_export

OUT_OF_MEMORY_HINT = (
    "Run again: training continues from the last checkpoint. If nobody killed it, memory ran out: "
    "lower train.global_batch_size or raise train.accumulation_steps."
)


def train_in_subprocess(job: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Call `train_and_export` after dividing the cores; return its telemetry as JSON."""
    return train_and_export(_prepare(job), **arguments).to_json()


def train_along_in_subprocess(training_directory: str, start_seconds: float) -> dict[str, Any]:
    """Wait for the chief's call and train along; what is kept is the chief's."""
    divide_cores()
    index, _ = place_in_cluster()
    call = wait_for_chief(training_directory, index)
    if call is not None:
        execution = read_execution(training_directory)
        train(call.job, call.rows_uri, training_directory, execution, call.tokenizer_path)
    return {}


def calibrate_in_subprocess(job: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Call `calibrate` after dividing the cores; return its result as JSON."""
    return calibrate(_prepare(job), **arguments).to_json()


def _prepare(values: dict[str, Any]) -> TrainingJob:
    job = TrainingJob.model_validate(values)
    if job.train.strategy != "tpu":
        divide_cores()
    return job
