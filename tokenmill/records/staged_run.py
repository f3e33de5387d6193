"""A Beam run with a staging directory, which is removed; a lost worker is a plain error."""

import contextlib
import os
from collections.abc import Iterator

from tokenmill.errors import TokenmillError
from tokenmill.records.staging import remove_staging

# What DirectRunner says of a worker process that has gone.
_LOST_WORKER = "Channel closed prematurely"


@contextlib.contextmanager
def staged_run(directory: str) -> Iterator[str]:
    """Give the path of a staging directory under `directory`, and remove it after the run.

    Raises:
        TokenmillError: A worker process ended before its work was done.
    """
    staging = os.path.join(directory, "staging")
    try:
        yield staging
    except RuntimeError as error:
        if _LOST_WORKER not in str(error):
            raise
        raise TokenmillError(
            "a Beam worker process ended before its work was done: something killed it. Nothing "
            "that it wrote counts.",
            "Run again; if the system kills it for its memory, give it fewer workers "
            "(--direct_num_workers).",
        ) from error
    finally:
        remove_staging(staging)
