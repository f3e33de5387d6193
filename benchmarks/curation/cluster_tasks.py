"""Peak memory of one task of the rounds that find clusters, its values left with the runner.

    python benchmarks/curation/cluster_tasks.py [EDGES]

Each chunk of a key's values is made when it is read, as by a runner that keeps them on disk; what
tracemalloc sees is then what the task itself holds.
"""

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from components.curate.star_rounds import large_star, small_star

CHUNK = 10_000
TASKS = 256


class Spilled:
    """Edges of a task in chunks; `make` gives the edges of places start .. start + CHUNK - 1."""

    def __init__(self, make: Callable[[np.ndarray], np.ndarray], count: int):
        self._make, self._count = make, count

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self._count, CHUNK):
            yield self._make(np.arange(start, start + CHUNK))


def hub_of_larger(places: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(places), places + 1], axis=1)


def hub_of_smaller(places: np.ndarray) -> np.ndarray:
    return np.stack([np.full_like(places, 1 << 40), places], axis=1)


def leaves_of_one(places: np.ndarray) -> np.ndarray:
    return np.stack([places + 1, np.zeros_like(places)], axis=1)


def main() -> None:
    count = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    print("| step | edges of the task | CPU s | peak MB |\n| --- | --- | --- | --- |")
    for name, step, make in (
        ("large-star, all of one hub", large_star, hub_of_larger),
        ("small-star, all of one hub", small_star, hub_of_smaller),
        ("small-star, each of a node of its own", small_star, leaves_of_one),
    ):
        tracemalloc.start()
        started = time.process_time()
        for _ in step((0, Spilled(make, count)), TASKS):
            pass
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"| {name} | {count:,} | {seconds:.1f} | {peak / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
