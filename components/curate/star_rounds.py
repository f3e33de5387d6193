"""Large-star and small-star: connected components by many tasks, none of which holds all edges.

The alternating algorithm of Kiveris et al. 2014, Connected Components in MapReduce and Beyond: a
round replaces each edge by one of the same component, nearer to a star around its least node.
Edges never become more. The functions work on arrays: a key is a task, and its values are the
edges of the nodes that it owns. A task reads its values twice, and holds one number a node of its
own and _BATCH_EDGES edges: not all edges of a hub, unless the runner does.

An edge is (child, parent), int64 [edges, 2], child > parent.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from components.curate.near_duplicates import components
from tokenmill.text.text_columns import mix

_BATCH_EDGES = 1 << 18


def owners(nodes: np.ndarray, tasks: int) -> np.ndarray:
    """Return the task that owns each node, int64 [nodes], by a fixed hash."""
    return (mix(nodes) % np.uint64(tasks)).astype(np.int64)


def send(tasks: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each task (from 0, ascending) and its rows, in their order; `tasks` is int64 [rows]."""
    order = np.argsort(tasks, kind="stable")
    tasks, rows = tasks[order], rows[order]
    bounds = [*np.flatnonzero(np.diff(tasks, prepend=-1)).tolist(), len(order)]
    for start, end in itertools.pairwise(bounds):
        yield int(tasks[start]), rows[start:end]


def stars(pairs: np.ndarray) -> np.ndarray:
    """Return the edges from each node to the least one that `pairs` connect it with.

    Args:
        pairs: int64 [pairs, 2], in any order; at least one.

    Returns:
        Edges, children ascending; a least node is no child.
    """
    nodes, _, labels = components(pairs)
    _, first = np.unique(labels, return_index=True)  # the least: nodes ascend
    roots = nodes[first][labels]
    return np.stack([nodes, roots], axis=1)[nodes != roots]


def small_star(
    item: tuple[int, Iterable[np.ndarray]], tasks: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Connect the smaller neighbors of each node, and itself, with the least of them.

    Args:
        item: A task, and edges whose children it owns.
        tasks: How many there are.

    Yields:
        For `large_star` (task, rows (node, neighbor)): each edge to the owners of both ends.
    """
    values = _readable_twice(item[1])
    least = _LeastNeighbors(values)
    for start in range(0, len(least.edges), _BATCH_EDGES):
        yield from _both_ways(least.edges[start : start + _BATCH_EDGES], tasks)
    for edges in _batches(values):
        roots = least.of(edges[:, 0])
        others = edges[:, 1] != roots
        moved = np.stack([edges[others, 1], roots[others]], axis=1)
        yield from _both_ways(distinct(moved), tasks)


def large_star(
    item: tuple[int, Iterable[np.ndarray]], tasks: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Connect the larger neighbors of each node with the least of itself and all neighbors.

    Args:
        item: A task, and rows (node, neighbor) of the nodes that it owns.
        tasks: How many there are.

    Yields:
        For `small_star` (task, edges): each edge to the owner of its child.
    """
    values = _readable_twice(item[1])
    least = _LeastNeighbors(values)
    for rows in _batches(values):
        larger = rows[rows[:, 1] > rows[:, 0]]
        moved = np.stack([larger[:, 1], least.of(larger[:, 0])], axis=1)
        yield from by_child(distinct(moved), tasks)


def by_child(edges: np.ndarray, tasks: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (task, edges): each edge to the owner of its child."""
    yield from send(owners(edges[:, 0], tasks), edges)


def distinct(rows: np.ndarray) -> np.ndarray:
    """Return the rows, int64 [rows, 2], ascending, each once (faster than np.unique's axis)."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return rows[new]


def look_up(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted node, or the node itself where it has none.

    Args:
        table: int64 [nodes, 2], a node and its value, nodes ascending.
        wanted: int64 [any number].
    """
    if not len(table):
        return wanted
    places = np.minimum(np.searchsorted(table[:, 0], wanted), len(table) - 1)
    return np.where(table[places, 0] == wanted, table[places, 1], wanted)


class _LeastNeighbors:
    """The least neighbor of each node that has one less than itself.

    Attributes:
        edges: From the node to that neighbor, nodes ascending.
    """

    def __init__(self, values: Iterable[np.ndarray]):
        self.edges = np.zeros((0, 2), np.int64)
        for rows in _batches(values):
            smaller = rows[rows[:, 1] < rows[:, 0]]
            edges = distinct(np.concatenate([self.edges, smaller]))
            self.edges = edges[np.diff(edges[:, 0], prepend=-1) > 0]

    def of(self, nodes: np.ndarray) -> np.ndarray:
        """Return the least neighbor of each node; itself, where none is less."""
        return look_up(self.edges, nodes)


def _both_ways(edges: np.ndarray, tasks: int) -> Iterator[tuple[int, np.ndarray]]:
    rows = np.concatenate([edges, edges[:, ::-1]])
    yield from send(owners(rows[:, 0], tasks), rows)


def _readable_twice(values: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Return what can be iterated over again, as Beam's values of a key can: no edge is lost."""
    return list(values) if iter(values) is values else values


def _batches(values: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the rows in arrays of _BATCH_EDGES or a little more, the last one less."""
    batch: list[np.ndarray] = []
    rows = 0
    for value in values:
        batch.append(value)
        rows += len(value)
        if rows >= _BATCH_EDGES:
            yield np.concatenate(batch)
            batch, rows = [], 0
    if batch:
        yield np.concatenate(batch)
