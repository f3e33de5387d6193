"""Python processes that abort at their end, as a destructor of a native library does at times."""

import contextlib
import os
import pathlib

HOOK = """
import ctypes
libc = ctypes.CDLL(None)
libc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)
"""


def aborting(directory: pathlib.Path) -> dict[str, str]:
    """The environment in which each process of Python aborts (SIGABRT) after Python's own end."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sitecustomize.py").write_text(HOOK)
    paths = [str(directory)]
    with contextlib.suppress(KeyError):
        paths.append(os.environ["PYTHONPATH"])
    return {"PYTHONPATH": os.pathsep.join(paths)}
