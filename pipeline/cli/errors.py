"""Users' errors of commands without a screen of their own: one or two lines, exit code 1."""

import contextlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import click

from tokenmill.errors import TokenmillError
from tokenmill.visible import visible_lines

_EXIT_FAILED = 1

# What libraries write to file descriptor 2 from C++, whatever TF_CPP_MIN_LOG_LEVEL says: abseil's
# information and warnings, and as errors that there is no GPU, or that its library is there twice.
_CHATTER = "|".join(
    (
        r"^WARNING: All log messages before absl::InitializeLog\(\)",
        r"^[IW][0-9]{4} [0-9:.]+ +[0-9]+ [A-Za-z0-9_./-]+:[0-9]+\]",
        r"^E[0-9]{4} [0-9:.]+ +[0-9]+ (cuda_(platform|fft|dnn|blas)|computation_placer)\.cc:",
        r"^INFO: Created TensorFlow Lite",
        # SentencePiece within TensorFlow's ops, of each tokenizer without normalization.
        r"^[a-z_]+\.cc\([0-9]+\) LOG\(INFO\) ",
    )
)


def fail(error: TokenmillError) -> NoReturn:
    """Show the error and end the process."""
    click.echo(f"{click.style('error:', fg='red')} {visible_lines(error.message)}", err=True)
    if error.hint:
        click.echo(visible_lines(error.hint.strip("\n")), err=True)
    sys.exit(_EXIT_FAILED)


def check_can_be_written(path: str, example: str) -> None:
    """Refuse a file of --out that could not be written, before an hour of training.

    Args:
        path: What was given.
        example: A name that would do.

    Raises:
        TokenmillError: It is a directory, or there is none for it.
    """
    directory = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(directory, os.W_OK):
        raise TokenmillError(
            f"--out {path}: expected a file in a directory that can be written.",
            f"Name another, such as {example}.",
        )


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Show a TokenmillError and end the process; standard error lacks TensorFlow's chatter only."""
    with _errors_shown(), without_chatter():
        yield


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    # TensorFlow complains at level 2 that it finds no GPU library; nothing here computes with it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
    try:
        yield
    except TokenmillError as error:
        fail(error)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Send standard error through grep for as long as it runs; TF_CPP_MIN_LOG_LEVEL=0 shows all.

    A process of its own passes on what a crash in native code says last; a thread would not.
    """
    grep = shutil.which("grep")
    if grep is None or sys.stderr is None or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    through = subprocess.Popen(
        [grep, "--line-buffered", "-aEv", _CHATTER],
        stdin=subprocess.PIPE,
        stdout=saved,
        env={"LC_ALL": "C"},
        start_new_session=True,  # Ctrl-C is not for it: what a server says as it stops is passed on
    )
    assert through.stdin is not None
    os.dup2(through.stdin.fileno(), 2)
    through.stdin.close()
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):  # grep was killed: what waits is written below
            sys.stderr.flush()
        os.dup2(saved, 2)  # the last of this process: grep comes to the end
        os.close(saved)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a child has it, and lives on
            through.wait(timeout=5)


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
        with _errors_shown():
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
