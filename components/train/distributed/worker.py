"""A worker other than the chief: trains along with the Trainer that runs in the pipeline.

    TF_CONFIG=.. python -m components.train.distributed.worker TRAINING_DIRECTORY

It waits for the chief to say what is trained (components/train/distributed/rendezvous.py), as long
as the chief lives, and ends with the chief's exit code: 0, or 75 if it is to be started again. The
training runs in a process of its own, so that this one always hears signals.
"""

import sys

from components.train.distributed.cluster import late_hint
from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.preemption import EXIT_INTERRUPTED, exit_code_of
from tokenmill.run_in_subprocess import run_in_subprocess

# By name: this process does not need TensorFlow.
_FUNCTION = "components.train.subprocess_entry.train_along_in_subprocess"


def main() -> int:
    """Run the command; return the exit code."""
    progress.set_listener(None, lambda message: print(message, file=sys.stderr, flush=True))
    hint = "Start all workers again. If nobody killed it, memory ran out."
    try:
        run_in_subprocess(
            _FUNCTION,
            "the worker",
            hint,
            late_hint=late_hint(),
            training_directory=sys.argv[1],
        )
    except TokenmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
