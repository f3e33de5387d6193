"""What ended a run or a study: a sentence and what to do for the screen, all for the log."""

import errno
import os
import sys
import traceback

from pipeline.report.console import RunConsole
from tokenmill.contracts.run_result import ErrorResult
from tokenmill.errors import TokenmillError
from tokenmill.visible import visible_lines


def explain_failure(screen: RunConsole, error: BaseException, debug: bool) -> ErrorResult:
    """Print an error to the user, and its trace to the log; return what was said.

    Args:
        screen: Whose bar is taken off.
        error: TFX and Beam raise anything; a `TokenmillError` says itself what to do.
        debug: Whether to show the trace, too.
    """
    screen.stop()
    trace = "".join(traceback.format_exception(error))
    print(visible_lines(trace), file=sys.stderr)  # the log
    if debug:
        screen.errors.print(trace, markup=False)
    if isinstance(error, TokenmillError):
        message, hint = error.message, error.hint.strip("\n")
    elif os.strerror(errno.ENOSPC) in str(error):
        # Libraries wrap the system's error in their own types; its words are what they keep.
        message = "the disk is full."
        hint = "Free some space or give another --output-dir, then run again."
    else:
        first_line = (str(error).strip().splitlines() or [""])[0]
        message = f"{type(error).__name__}: {first_line}"
        hint = "Run again with --debug for the stack trace."
    screen.paragraph(message, "[red]error:[/] ", to_errors=True)
    if hint:
        screen.paragraph(hint, to_errors=True)
    return ErrorResult(message=message, hint=hint)


def cause_of(error: BaseException) -> BaseException:
    """Return what a person has to know of: of an error that only wraps another, the other."""
    return error if isinstance(error, TokenmillError) else error.__cause__ or error
