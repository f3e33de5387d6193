"""Consoles and tables of the commands that print once and end."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import click
from rich import markup
from rich.console import Console, ConsoleOptions, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.table import Table

from tokenmill.visible import visible, visible_lines

_Item = TypeVar("_Item")


class SafeConsole(Console):
    """A console that shows the controls in texts; the only ones it sends are its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of a renderable, controls in their texts made visible."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible_lines(segment.text)
            yield Segment(text, segment.style, segment.control)


def escape(data: str) -> str:
    """Return a text from data for a cell or a line of rich's markup, on one line."""
    return markup.escape(visible(data))


def echo(text: str = "", err: bool = False, **style: Any) -> None:
    """Print lines that may hold text from data, in a style of `click.style`.

    Args:
        text: The lines.
        err: Whether they go to standard error.
        style: What `click.style` takes.
    """
    shown = visible_lines(text)
    click.echo(click.style(shown, **style) if style else shown, err=err)


def stdout_console(pipe_width: int = 100, highlight: bool = False) -> Console:
    """Return a console of standard output; a pipe, which has no width, gets `pipe_width`."""
    return SafeConsole(highlight=highlight, width=None if sys.stdout.isatty() else pipe_width)


def largest(ordered: Sequence[_Item], most: int) -> tuple[Sequence[_Item], Sequence[_Item]]:
    """Divide items into those with a line of their own, about the first `most`, and the others.

    A single other gets its line, too: a line that names it is no longer than one that counts it.
    """
    shown = len(ordered) if len(ordered) <= most + 1 else most
    return ordered[:shown], ordered[shown:]


def plain_table(*columns: str, left: int = 1, overflow: OverflowMethod = "fold") -> Table:
    """Return a table without lines; the columns after the first `left` hold numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", overflow=overflow)
    return table


def share_text(value: float) -> str:
    """Write a share from 0 to 1 in percent."""
    if value == 0:
        return "0"
    return f"{value:.1%}" if value >= 0.0005 else "<0.1%"
