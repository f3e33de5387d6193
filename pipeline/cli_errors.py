"""How a command that has no screen of its own shows a user's error: one or two lines, exit 1."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

import click

from components.errors import TokenmillError


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Shows a TokenmillError and ends the process; keeps the libraries' own warnings quiet."""
    # TensorFlow complains at level 2 that it finds no GPU library; nothing here computes with it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except TokenmillError as error:
        click.echo(f"{click.style('error:', fg='red')} {error.message}", err=True)
        if error.hint:
            click.echo(error.hint.strip("\n"), err=True)
        sys.exit(1)
