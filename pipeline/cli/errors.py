"""Users' errors of commands without a screen of their own: one or two lines, exit code 1."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import click

from tokenmill.errors import TokenmillError
from tokenmill.visible import visible_lines

_EXIT_FAILED = 1


def fail(error: TokenmillError) -> NoReturn:
    """Show the error and end the process."""
    click.echo(f"{click.style('error:', fg='red')} {visible_lines(error.message)}", err=True)
    if error.hint:
        click.echo(visible_lines(error.hint.strip("\n")), err=True)
    sys.exit(_EXIT_FAILED)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Show a TokenmillError and end the process; standard error stays as it is."""
    # TensorFlow complains at level 2 that it finds no GPU library; nothing here computes with it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
    try:
        yield
    except TokenmillError as error:
        fail(error)


@contextlib.contextmanager
def user_errors_without_warnings() -> Iterator[None]:
    """Do as `user_errors`, and show no Python warnings of libraries."""
    with user_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def user_errors_only() -> Iterator[None]:
    """Do as `user_errors`, and silence standard error otherwise: libraries warn from C++, too."""
    restore = _quiet_stderr()
    try:
        with user_errors():
            try:
                yield
            finally:
                restore()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(_EXIT_FAILED)


def _quiet_stderr() -> Callable[[], None]:
    """Silence standard error; return the function that ends the silence."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)

    def restore() -> None:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)

    return restore
