"""Where the seconds go, by phase."""

import contextlib
import time
from collections.abc import Iterator

from tokenmill.contracts.training import Phase


class PhaseTimer:
    """Adds up wall and CPU seconds by phase from the moment it is made.

    A phase inside another does not count for the outer one; what lies outside all phases is
    `other`. So the phases add up to the time since the start.

    Args:
        seconds: Where to add wall seconds; earlier attempts' seconds may be in it.

    Attributes:
        cpu_seconds: CPU seconds of this process, all threads: where wall seconds grow and these do
            not, the machine was busy with something else.
    """

    def __init__(self, seconds: dict[Phase, float]):
        self.seconds = seconds
        self.cpu_seconds: dict[Phase, float] = {}
        self._running: list[Phase] = []
        self._since, self._cpu_since = time.perf_counter(), time.process_time()

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Add the body's time to a phase."""
        self.book()
        self._running.append(phase)
        try:
            yield
        finally:
            self.book()
            self._running.pop()

    def book(self) -> None:
        """Add the seconds since the last call to the phase that runs."""
        now, cpu_now = time.perf_counter(), time.process_time()
        phase = self._running[-1] if self._running else Phase.OTHER
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        used = cpu_now - self._cpu_since
        self.cpu_seconds[phase] = self.cpu_seconds.get(phase, 0.0) + used
        self._since, self._cpu_since = now, cpu_now

    @property
    def total(self) -> float:
        """Seconds of all phases up to now, earlier attempts included."""
        self.book()
        return sum(self.seconds.values())
