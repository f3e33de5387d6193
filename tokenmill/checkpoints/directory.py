"""What a directory is, without reading it."""

import os

from tokenmill.checkpoints.pooling import MODULES_NAME
from tokenmill.checkpoints.settings import CONFIG_NAME


def is_checkpoint(directory: str) -> bool:
    """Return whether a local directory is a Hugging Face checkpoint, or meant to be one."""
    return any(os.path.exists(os.path.join(directory, n)) for n in (CONFIG_NAME, MODULES_NAME))
