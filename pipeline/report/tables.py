"""Consoles and tables of the commands that print once and end."""

import sys

from rich.console import Console, OverflowMethod
from rich.table import Table


def stdout_console(pipe_width: int = 100, highlight: bool = False) -> Console:
    """Return a console of standard output; a pipe, which has no width, gets `pipe_width`."""
    return Console(highlight=highlight, width=None if sys.stdout.isatty() else pipe_width)


def plain_table(
    *columns: str, left: int = 1, overflow: OverflowMethod = "fold", title: str | None = None
) -> Table:
    """Return a table without lines; the columns after the first `left` hold numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", overflow=overflow)
    return table
