"""A Beam run with a spool: what is left of it goes, and a lost worker is told in plain words."""

import contextlib
import os
from collections.abc import Iterator

from tokenmill.errors import TokenmillError
from tokenmill.records.staging import remove_spool

# What DirectRunner says of a worker process that has gone.
_LOST_WORKER = "Channel closed prematurely"


@contextlib.contextmanager
def spooled_run(directory: str) -> Iterator[str]:
    """Gives the path of a spool under `directory`, for a run inside; removes it after the run.

    Raises:
        TokenmillError: A worker process ended before its work was done.
    """
    spool = os.path.join(directory, "spool")
    try:
        yield spool
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
        remove_spool(spool)
