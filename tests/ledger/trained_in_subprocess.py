"""A short training in a process of its own, which tells how much memory it took."""

from components.train.config import TrainingJob
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.run import train
from tokenmill.machine import peak_process_bytes


def train_and_measure(job, rows_uri, start_seconds):
    """Train as the Trainer does, without an export; return the peak of the process, bytes."""
    divide_cores()
    train(TrainingJob.model_validate(job), rows_uri, None, start_seconds=start_seconds)
    return {"peak_process_bytes": peak_process_bytes()}
