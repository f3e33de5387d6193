"""Where the seconds go, by phase."""

import contextlib
import time
from collections.abc import Iterator

# Phases in which a step is computed; the rest is what goodput loses.
STEADY_PHASES = ("steps", "input")


class PhaseTimer:
    """Adds up wall seconds by phase from the moment it is made.

    A phase inside another does not count for the outer one; what lies outside all phases is
    `other`. So the phases add up to the time since the start.

    Args:
        seconds: Where to add; earlier attempts' seconds may be in it.
    """

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the body's time to a phase."""
        self.book()
        self._running.append(name)
        try:
            yield
        finally:
            self.book()
            self._running.pop()

    def book(self) -> None:
        """Brings `seconds` up to now."""
        now = time.perf_counter()
        name = self._running[-1] if self._running else "other"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    @property
    def total(self) -> float:
        """Seconds of all phases up to now, earlier attempts included."""
        self.book()
        return sum(self.seconds.values())
