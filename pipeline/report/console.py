"""The screen while the pipeline runs: one line a step, a bar in the long ones.

No error of what only shows something fails a run: it is logged, said, and the run goes on. What the
screen leaves out for want of room, the log and report.txt have whole.
"""

import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TextIO

from rich.cells import cell_len
from rich.console import ConsoleDimensions
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from pipeline.report.lines import fit_parts, wrap_words
from pipeline.report.tables import SafeConsole, escape, largest
from tokenmill.number_format import byte_size, count
from tokenmill.visible import visible, visible_lines

MOST_COLUMNS = 100
"""Columns of the default screen: a terminal that is wider shows no longer lines."""

_FULL_COLUMNS = 140
_LEAST_COLUMNS = 20
_NAME_WIDTH = 16
_TIME_WIDTH = 8
_SUMMARY_AT = 2 + _NAME_WIDTH + 1 + _TIME_WIDTH + 2
_BAR_COLUMNS = 12
# Remarks of a step on the screen: one a language or a source may be many.
_REMARKS_SHOWN = 3
_READ_SECONDS = 0.2

_Parameters = ParamSpec("_Parameters")


class _Console(SafeConsole):
    """rich's, as wide as its own stream; a reader that has gone does not end the process."""

    def __init__(self, stream: TextIO, most_columns: int | None, quiet: bool = False):
        super().__init__(file=stream, highlight=False, quiet=quiet)
        self._most_columns = most_columns

    @property  # type: ignore[misc]  # rich's can be set
    def size(self) -> ConsoleDimensions:
        """Return the columns and lines of the terminal, of a pipe or a file what suits it.

        rich measures standard output, which goes to the log, and takes 80 for a dumb terminal.
        """
        given = os.environ.get("COLUMNS", "")
        columns, lines = int(given) if given.isdigit() else 0, 25
        is_terminal = self.file.isatty()
        if is_terminal:
            with contextlib.suppress(OSError, ValueError):
                found = os.get_terminal_size(self.file.fileno())
                columns, lines = columns or found.columns, found.lines or lines
        most = self._most_columns
        if most is None:
            most = columns if is_terminal and columns else _FULL_COLUMNS
        return ConsoleDimensions(max(_LEAST_COLUMNS, min(columns or most, most)), lines)

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True


@dataclass(frozen=True)
class ShownStep:
    """A step as the screen shows it.

    Attributes:
        name: Of the step.
        seconds: Since it was started.
        cached: Whether its outputs are an earlier run's.
        ended: "" for a step that finished, else in a word or two why it did not.
        summary: What it counted, whole.
    """

    name: str
    seconds: float
    cached: bool = False
    ended: str = ""
    summary: str = ""


def _never_fails(method: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Make a method of the screen whose errors go to the log."""

    @functools.wraps(method)
    def shown(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logging.exception("%s could not be shown", args[1:])

    return shown


class RunConsole:
    """Prints to a terminal, or plain lines to a file.

    Args:
        stream: Where to print.
        full: Show everything, in lines as long as they get.
        errors: Where errors go if nothing else is to be shown; None shows all on `stream`.

    Attributes:
        steps: The steps that were shown, in their order.
        notes: The sentences that a person has to see, in their order.
    """

    def __init__(self, stream: TextIO, full: bool = False, errors: TextIO | None = None):
        most = None if full else MOST_COLUMNS
        self.console = _Console(stream, most, quiet=errors is not None)
        self.errors = self.console if errors is None else _Console(errors, most)
        self.full = full
        self.skips_cached = False
        """Whether nothing is said of steps whose outputs are an earlier run's."""
        self.steps: list[ShownStep] = []
        self.notes: list[str] = []
        self._stream = stream
        self._progress: Progress | None = None
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._documents = self._bytes = 0
        self._read_shown = 0.0

    @_never_fails
    def say(self, text: str, markup: bool = True) -> None:
        """Print one line, of rich's markup if not said otherwise, however long it is."""
        self.console.print(text, soft_wrap=True, markup=markup)

    @_never_fails
    def paragraph(self, text: str, lead: str = "", to_errors: bool = False) -> None:
        """Print a text from data, wrapped between words; what follows a line's first is indented.

        Args:
            text: Lines; the indentation of each is kept.
            lead: What comes before the first line, in rich's markup.
            to_errors: Whether it is an error.
        """
        console = self.errors if to_errors else self.console
        for i, line in enumerate(visible_lines(text).split("\n")):
            own = " " * (len(line) - len(line.lstrip(" ")))
            first, other = (lead if i == 0 else "") + own, f"{own}  "
            used = cell_len(Text.from_markup(first).plain.lstrip("\n"))
            columns = (console.width - used, console.width - len(other))
            for k, part in enumerate(wrap_words(line.strip(" "), *columns)):
                console.print(f"{other if k else first}{escape(part)}", soft_wrap=True)

    @_never_fails
    def parts(self, title: str, parts: Sequence[str]) -> None:
        """Print a line of parts from data, as many as fit, and how many more there are."""
        room = self.console.width - cell_len(title)
        text = ", ".join(parts) if self.full else fit_parts([visible(p) for p in parts], room)
        self.console.print(f"[bold]{title}[/]{escape(text)}", soft_wrap=True)

    def print_document(self, text: str) -> bool:
        """Print a document on the stream, whether or not anything else is shown there.

        Returns:
            Whether it is there: a full disk takes nothing, and who reads a document relies on it.
        """
        self.stop()
        quiet, self.console.quiet = self.console.quiet, False
        try:
            self.console.print(text, markup=False, soft_wrap=True, emoji=False)
        except OSError as error:
            logging.exception("standard output took no document")
            self.paragraph(
                f"standard output: expected to write what was asked for: {error.strerror}.",
                "[red]error:[/] ", to_errors=True,
            )  # fmt: skip
            return False
        finally:
            self.console.quiet = quiet or self.console.quiet
        return True

    @contextlib.contextmanager
    def showing(self, what: str) -> Iterator[None]:
        """Log and say an error of a block that only shows something, and go on after it."""
        try:
            yield
        except Exception as error:
            logging.exception("%s could not be shown", what)
            self.note(
                f"{what} could not be shown ({type(error).__name__}: {error}). The run is not "
                "affected; the log has the trace."
            )

    @_never_fails
    def note(self, message: str) -> None:
        """Print a sentence that a person has to see, above a bar if there is one."""
        self.notes.append(message)
        logging.info("note: %s", message)
        self.paragraph(message, "[yellow]![/] ")

    def remarks(self, messages: Sequence[str]) -> None:
        """Print what a person has to see of a step; of many the first, and how many more."""
        shown, rest = (messages, []) if self.full else largest(messages, _REMARKS_SHOWN)
        for message in shown:
            self.note(message)
        for message in rest:
            self.notes.append(message)
            logging.info("note: %s", message)
        if rest:
            self.paragraph(f".. and {len(rest):,} more remarks, in report.txt", "[yellow]![/] ")

    @_never_fails
    def step_started(self, name: str) -> None:
        """Show a spinner with the step's name until `step_finished`."""
        self.stop()
        self._started = time.perf_counter()
        self._documents = self._bytes = 0
        self._read_shown = 0.0
        if not self._stream.isatty() or self.console.is_dumb_terminal or self.console.quiet:
            return
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn(f"{name:<{_NAME_WIDTH}}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=_BAR_COLUMNS if self.console.width >= MOST_COLUMNS else 5),
            TextColumn(
                "{task.fields[detail]}",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            transient=True,
            expand=True,
        )
        self._progress.add_task(name, total=None, detail="")
        self._progress.start()

    @_never_fails
    def step_progress(self, done: float, total: float, detail: str) -> None:
        """Move the running step's bar; the listener of tokenmill/progress.py.

        At the end of what is counted it moves without end: a training is evaluated and exported.
        """
        if self._progress is None:
            return
        (task,) = self._progress.task_ids
        if done < total:
            self._progress.update(task, completed=done, total=total, detail=escape(detail))
            return
        self._progress.remove_task(task)
        self._progress.add_task("", total=None, detail=escape(detail))

    @_never_fails
    def step_read(self, documents: int, size_bytes: int) -> None:
        """Add to what the running step has read, and show how fast it reads.

        A step may read its documents several times, so that there is no end to show.
        """
        if self._progress is None:
            return
        with self._lock:
            self._documents += documents
            self._bytes += size_bytes
            seconds = time.perf_counter() - self._started
            if seconds < self._read_shown + _READ_SECONDS:
                return
            self._read_shown = seconds
            detail = f"{count(self._documents)} documents, {byte_size(self._bytes / seconds)}/s"
        self._progress.update(self._progress.task_ids[0], detail=detail)

    @_never_fails
    def step_finished(self, name: str, summary: Sequence[str], cached: bool) -> None:
        """Print the line of a finished step: a tick, its name, its time, its counts.

        Args:
            name: Of the step.
            summary: What it counted, the most important first: what has no room is counted.
            cached: Whether its outputs are an earlier run's.
        """
        seconds = time.perf_counter() - self._started
        self.stop()
        whole = ", ".join(summary)
        step = ShownStep(name, seconds, cached, "", whole)
        self.steps.append(step)
        logging.info("%s finished in %.1f s%s: %s", name, seconds, ", cached" * cached, whole)
        room = self.console.width - _SUMMARY_AT
        text = whole if self.full else fit_parts([visible(part) for part in summary], room)
        self.console.print(_step_line(step, text), soft_wrap=True)

    @_never_fails
    def step_failed(self, name: str, why: str = "failed") -> None:
        """Print the line of a step that failed."""
        seconds = time.perf_counter() - self._started
        self.stop()
        step = ShownStep(name, seconds, ended=why)
        self.steps.append(step)
        self.console.print(_step_line(step, why), soft_wrap=True)

    @_never_fails
    def stop(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def repeat_on(self, other: "RunConsole") -> None:
        """Print the lines of the steps and the notes once more, on another screen."""
        for step in self.steps:
            other.say(_step_line(step, step.ended or step.summary))
        for note in self.notes:
            other.say(f"! {escape(note)}")


def _step_line(step: ShownStep, text: str) -> str:
    """Return the line of a step in rich's markup: how it ended, its name, its time, a text."""
    mark = "[red]✗[/]" if step.ended else "[green]✓[/]"
    took = "cached" if step.cached else f"{step.seconds:.1f} s"
    line = f"{mark} {step.name:<{_NAME_WIDTH}} [dim]{took:>{_TIME_WIDTH}}[/]  {escape(text)}"
    return line.rstrip()


def largest_counts(counts: dict[str, int], most: int) -> str:
    """Write the largest counts by name, `most` of them, and how many the others have."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count(number)} {name}" for name, number in ordered[:most]]
    if rest := sum(number for _, number in ordered[most:]):
        parts.append(f"{count(rest)} others")
    return ", ".join(parts)
