"""What this process may use of the machine: cores and memory, by its affinity and control groups.

A container sees all cores and all memory of its machine; what it may use says its cgroup, of
version 1 or 2, and those around it. What cannot be read is no limit.
"""

import math
import os
import resource
from collections.abc import Callable, Iterator

_PROC = "/proc/self"


def vcpus() -> int:
    """Return the number of cores that this process may use; a quota of 1.5 cores counts as 2."""
    quota = min(_limits("cpu", {"cpu.max": _core_quota, "cpu.cfs_quota_us": _core_quota_1}))
    cores = len(os.sched_getaffinity(0))
    return cores if quota >= cores else max(1, math.ceil(quota))


def memory_bytes() -> int:
    """Return the memory that this process may use, in bytes."""
    names = ("memory.max", "memory.limit_in_bytes")
    limit = min(_limits("memory", {name: lambda path: _number(_read(path)) for name in names}))
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(whole, limit))


def process_bytes() -> int:
    """Return the memory that this process holds now, in bytes (resident)."""
    return int(_read(f"{_PROC}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_process_bytes() -> int:
    """Return the most memory that this process has held, in bytes (resident)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _core_quota(path: str) -> float:
    quota, _, period = _read(path).partition(" ")
    return _number(quota) / _number(period or "100000")


def _core_quota_1(path: str) -> float:
    quota = _number(_read(path))
    period = _number(_read(path.replace("quota", "period")))
    return math.inf if quota < 0 else quota / period


def _limits(controller: str, files: dict[str, Callable[[str], float]]) -> Iterator[float]:
    """Yield the limits of this process's cgroup and of all around it; at least one, infinite."""
    yield math.inf
    for directory in _directories(controller):
        for name, read in files.items():
            path = os.path.join(directory, name)
            if os.path.exists(path):
                yield read(path)


def _directories(controller: str) -> Iterator[str]:
    """Yield the directories of the cgroups of a controller, the innermost first."""
    own: dict[str, str] = {}  # by controller; "" is version 2
    for line in _read(f"{_PROC}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own |= {name: path for name in controllers.split(",")}
    for line in _read(f"{_PROC}/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, *_, options = system.split(" ")
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name not in own or (name and name not in options.split(",")):
            continue
        root, top = mount.split(" ")[3:5]
        # A container may see its own cgroup as the root of the mount.
        inside = os.path.relpath(own[name], root) if own[name].startswith(root) else "."
        directory = os.path.normpath(os.path.join(top, inside))
        while directory.startswith(top):
            yield directory
            directory = os.path.dirname(directory)


def _number(text: str) -> float:
    return math.inf if text in ("max", "") else float(text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
