"""An end of a process that no native library can turn into a failure.

TensorFlow and others have threads and static objects that their destructors take down after
Python's end, and one that aborts there (SIGABRT) makes a failed process of one that has done its
work: an engine would start the step again, or give up the run.
"""

import atexit
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

_EXIT_FLUSH_FAILED = 120  # Python's own, where what was printed cannot be written at the end


def end_without_destructors(function: Callable[[], Any]) -> None:
    """Call a function that is all of the process, then end that with the function's exit code.

    Threads are waited for and exit handlers run as ever; destructors of native libraries do not. To
    be called first of all: the handlers that are registered before it do not run.

    Args:
        function: Its exit code is that of a SystemExit, 1 for another exception, or 0. An
            interrupt (Ctrl-C) that it does not handle ends the process as ever.
    """
    code = 1

    def leave() -> None:  # the first that is registered runs last
        logging.shutdown()
        flushed = all([_flush(stream) for stream in (sys.stdout, sys.stderr)])
        os._exit(code if flushed else code or _EXIT_FLUSH_FAILED)

    atexit.register(leave)
    try:
        function()
        code = 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            code = error.code or 0
        raise
    except KeyboardInterrupt:
        atexit.unregister(leave)
        raise


def _flush(stream: Any) -> bool:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):  # its reader is gone, or it is closed
        return False
    return True
