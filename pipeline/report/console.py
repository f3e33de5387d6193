"""The screen while the pipeline runs: one line a step, a bar in the long ones.

No error of what only shows something fails a run: it is logged, said, and the run goes on.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TextIO

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from pipeline.report.tables import SafeConsole, escape
from tokenmill.number_format import count

_NAME_WIDTH = 17

_Parameters = ParamSpec("_Parameters")


class _Console(SafeConsole):
    """rich's, but a reader that has gone (`tokenmill run | head`) does not end the process."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True


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
    """

    def __init__(self, stream: TextIO):
        # A pipe has no width: take one at which no line of ours wraps.
        width = None if stream.isatty() else 140
        self.console = _Console(file=stream, highlight=False, width=width)
        self._progress: Progress | None = None
        self._started = time.perf_counter()

    @_never_fails
    def say(self, text: str) -> None:
        """Print one line of rich's markup."""
        self.console.print(text)

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
        self.console.print(f"[yellow]![/] {escape(message)}", soft_wrap=True)

    @_never_fails
    def step_started(self, name: str) -> None:
        """Show a spinner with the step's name until `step_finished`."""
        self.stop()
        self._started = time.perf_counter()
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn(f"{name:<{_NAME_WIDTH}}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            transient=True,
        )
        self._progress.add_task(name, total=None, detail="")
        self._progress.start()

    @_never_fails
    def step_progress(self, done: float, total: float, detail: str) -> None:
        """Move the running step's bar; the listener of tokenmill/progress.py."""
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0], completed=done, total=total, detail=escape(detail)
            )

    @_never_fails
    def step_finished(self, name: str, summary: str, cached: bool) -> None:
        """Print the line of a finished step: a tick, its name, its time, its counts."""
        seconds = time.perf_counter() - self._started
        self.stop()
        took = "cached" if cached else f"{seconds:.1f} s"
        self.console.print(
            f"[green]✓[/] {name:<{_NAME_WIDTH}} [dim]{took:>8}[/]  {escape(summary)}",
            soft_wrap=True,
        )

    @_never_fails
    def step_failed(self, name: str, why: str = "failed") -> None:
        """Print the line of a step that failed."""
        seconds = time.perf_counter() - self._started
        self.stop()
        self.console.print(f"[red]✗[/] {name:<{_NAME_WIDTH}} [dim]{seconds:>6.1f} s[/]  {why}")

    @_never_fails
    def stop(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def largest_counts(counts: dict[str, int], most: int) -> str:
    """Write the largest counts by name, `most` of them, and how many the others have."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count(number)} {name}" for name, number in ordered[:most]]
    if rest := sum(number for _, number in ordered[most:]):
        parts.append(f"{count(rest)} others")
    return ", ".join(parts)
