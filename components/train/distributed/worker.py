"""A worker other than the chief: trains along with the Trainer that runs in the pipeline.

    TF_CONFIG=.. python -m components.train.distributed.worker TRAINING_DIRECTORY

It waits for the chief to say what is trained (components/train/distributed/rendezvous.py), and
ends with the chief's exit code: 0, or 75 if it is to be started again.
"""

import sys

from components.train.distributed.cpu_parallelism import divide_cores
from components.train.distributed.rendezvous import wait_for_chief
from components.train.execution import read_execution
from components.train.run import train
from tokenmill.errors import TokenmillError


def work(training_directory: str, wait_seconds: float = 3600.0) -> None:
    """Wait for the chief's job and train along.

    Args:
        training_directory: The chief's, on a file system that all workers share.
        wait_seconds: How long to wait for the chief.

    Raises:
        TokenmillError: The chief did not come, or what the training raises.
    """
    rendezvous = wait_for_chief(training_directory, wait_seconds)
    execution = read_execution(training_directory)
    train(
        rendezvous.job,
        rendezvous.rows_uri,
        training_directory,
        execution,
        rendezvous.tokenizer_path,
    )


def main() -> int:
    """Run the command; return the exit code."""
    divide_cores()
    try:
        work(sys.argv[1])
    except TokenmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
