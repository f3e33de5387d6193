"""Bytecode that AutoGraph of TensorFlow leaves in the temporary directory."""

import atexit
import contextlib
import importlib.util
import os
import sys


def remove_generated_bytecode() -> None:
    """Remove it when this process ends: AutoGraph removes its source files, and not these."""
    atexit.register(_remove)


def _remove() -> None:
    for name, module in list(sys.modules.items()):
        source = getattr(module, "__file__", None)
        if name.startswith("__autograph_generated_file") and source:
            path = importlib.util.cache_from_source(source)
            with contextlib.suppress(OSError):
                os.remove(path)
                os.rmdir(os.path.dirname(path))  # if it was the last
