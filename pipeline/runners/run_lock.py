"""One run at a time in an output directory: SQLite and TFX's cache have a single writer."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from tokenmill.errors import TokenmillError


@contextlib.contextmanager
def run_lock(output_dir: str) -> Iterator[None]:
    """Hold the directory's lock.

    Raises:
        TokenmillError: Another process holds it, or it cannot be made.
    """
    try:
        lock = open(os.path.join(output_dir, ".lock"), "w", encoding="ascii")  # noqa: SIM115
    except OSError as error:
        raise TokenmillError(
            f"cannot write to {output_dir}: {error.strerror}.",
            "Choose another directory with --output-dir, or have this one's owner allow it.",
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TokenmillError(
                f"another run is using {output_dir}.",
                "Wait for it, or give this one another --output-dir.",
            ) from None
        yield
