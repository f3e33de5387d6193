"""CPU seconds and peak memory of a process and its children."""

import os
import resource
import threading


def cpu_seconds() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


class PeakMemory:
    """Watches a process and its descendants: VmHWM, as ru_maxrss is inherited from the parent."""

    def __init__(self) -> None:
        self._self, self._stop = os.getpid(), threading.Event()
        self._peaks: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peaks_mb(self) -> dict[str, float]:
        """Megabytes (10^6 bytes) of this process and of its largest descendant."""
        self._stop.set()
        self._thread.join()
        own = self._peaks.pop(self._self)
        return {"self": own, "child": max(self._peaks.values(), default=0.0)}

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._look()
        self._look()

    def _look(self) -> None:
        pending = [self._self]
        while pending:
            pid = pending.pop()
            try:
                with open(f"/proc/{pid}/status", encoding="ascii") as status:
                    fields = dict(line.split(":", 1) for line in status)
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as children:
                        pending += map(int, children.read().split())
            except OSError:
                continue  # it has ended
            if "VmHWM" in fields:
                self._peaks[pid] = int(fields["VmHWM"].split()[0]) * 1024 / 1e6
