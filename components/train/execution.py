"""How a training is carried out, as the runner leaves it beside the checkpoints: execution.json.

It is no part of the Trainer's cache key, so that another checkpoint interval does not train anew.
"""

import os

import tensorflow as tf

from components.train.config import ExecutionConfig
from tokenmill.files import read_json, write_json

EXECUTION_NAME = "execution.json"


class Execution(ExecutionConfig):
    """The section [execution], and whether this attempt starts over."""

    fresh: bool = False
    """Start over, whatever checkpoints there are."""

    def write(self, training_directory: str) -> None:
        """Leave it where `read_execution` finds it."""
        write_json(os.path.join(training_directory, EXECUTION_NAME), self.model_dump(mode="json"))


def read_execution(training_directory: str) -> Execution:
    """Return what the runner has left, or the defaults where there is no runner's file."""
    path = os.path.join(training_directory, EXECUTION_NAME)
    return Execution(**read_json(path)) if tf.io.gfile.exists(path) else Execution()
