"""Clusters of near duplicates by many workers: the copies that `cluster` drops, found in rounds.

    pairs -> stars in each task -> rounds of small-star, large-star -> settle -> what is left, by
    one worker -> best copy of each task -> best of all -> the copies that go

A task of the rounds owns documents by a hash; one of the last steps has a range of them, so that
it reads their rows in one place. From each range one candidate a cluster travels, and none holds
a whole cluster. The fixed number of rounds suffices for all but long chains; what it leaves is
made smaller, and the worker that joins it says how much it was.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from components.curate.clusters import (
    best_copies,
    drop_copies,
    greatest_similarities,
    rank_copies,
)
from components.curate.config import CurateConfig
from components.curate.deduplicate import DroppedGroup, Edges
from components.curate.star_rounds import (
    by_child,
    distinct,
    large_star,
    look_up,
    owners,
    send,
    small_star,
    stars,
)
from tokenmill.beam_arguments import shuffles_in_memory
from tokenmill.records.staging import StagedPart, Staging

# One worker needs some 300 bytes for each document in a cluster: 1.5 GB if all of these are.
ONE_WORKER_DOCUMENTS = 5_000_000
ROUNDS = 4
_MANY_EDGES = 1_000_000  # for one worker, of what the rounds leave

_EDGES, _SIMILARITIES, _MEMBERS, _WINNERS = "edges", "similarities", "members", "winners"
_LEFT = "left"


def cluster_rounds(documents: int, options: PipelineOptions) -> int:
    """Return how many rounds find the clusters of so many documents; 0: one worker finds them.

    Where the shuffle is in memory, too, one worker takes less of it at any size.
    """
    if documents <= ONE_WORKER_DOCUMENTS or shuffles_in_memory(options):
        return 0
    return ROUNDS


class Members(NamedTuple):
    """Documents in clusters, of one range.

    Attributes:
        documents: int64 [documents], ascending.
        labels: int64 [documents], a document of the cluster, the same for all of it.
        similarities: float64 [documents], the greatest one to any other document.
    """

    documents: np.ndarray
    labels: np.ndarray
    similarities: np.ndarray


class DistributedClusters(beam.PTransform):
    """PCollection of Edges -> PCollection of [DroppedGroup], as `cluster` drops them.

    Args:
        parts: All parts, as a side input.
        config: Has the least similarity of copies.
        tasks: In how many tasks the documents are divided.
        rounds: How often small-star and large-star are done; more change no result.
    """

    def __init__(
        self,
        parts: beam.pvalue.AsSideInput,
        config: CurateConfig,
        tasks: int,
        rounds: int = ROUNDS,
    ):
        super().__init__()
        self._parts, self._config = parts, config
        self._tasks, self._rounds = tasks, rounds

    def expand(self, edges: beam.PCollection) -> beam.PCollection:
        """Find the components, then the best copy of each."""
        parts, tasks = self._parts, self._tasks
        nearer = edges | "Stars" >> beam.FlatMap(_stars, tasks)
        for number in range(self._rounds):
            nearer = (
                nearer
                | f"ByChild[{number}]" >> beam.GroupByKey()
                | f"SmallStar[{number}]" >> beam.FlatMap(small_star, tasks)
                | f"ByNode[{number}]" >> beam.GroupByKey()
                | f"LargeStar[{number}]" >> beam.FlatMap(large_star, tasks)
            )
        settled = (
            {
                _EDGES: nearer | "EdgesByRange" >> beam.FlatMap(_edges_by_range, parts, tasks),
                _SIMILARITIES: edges
                | "SimilaritiesByRange" >> beam.FlatMap(_similarities_by_range, parts, tasks),
            }
            | "ByRange" >> beam.CoGroupByKey()
            | "Settle" >> beam.FlatMap(settle).with_outputs(_LEFT, main=_MEMBERS)
        )
        labels = settled[_LEFT] | "Left" >> beam.combiners.ToList() | "Join" >> beam.Map(join_left)
        ranked = settled[_MEMBERS] | "Rank" >> beam.FlatMap(
            _rank, parts, beam.pvalue.AsSingleton(labels), tasks
        ).with_outputs(_MEMBERS, main="candidates")
        winners = (
            ranked.candidates | "ByLabel" >> beam.GroupByKey() | "Choose" >> beam.FlatMap(_choose)
        )
        return (
            {_MEMBERS: ranked[_MEMBERS], _WINNERS: winners}
            | "WithWinners" >> beam.CoGroupByKey()
            | "DropCopies" >> beam.Map(_drop_copies, self._config)
        )


def _stars(edges: Edges, tasks: int) -> Iterator[tuple[int, np.ndarray]]:
    yield from by_child(stars(edges.pairs), tasks)


def _ranges(documents: np.ndarray, parts: list[StagedPart], ranges: int) -> np.ndarray:
    """Return the range of each document, int64; ranges hold as many staged documents each."""
    return documents * ranges // Staging(parts).rows


def _edges_by_range(
    item: tuple[int, np.ndarray], parts: list[StagedPart], ranges: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (range, edges): each edge to its child's range; to its parent's, an edge to itself."""
    edges = item[1]
    loops = np.repeat(np.unique(edges[:, 1])[:, None], 2, axis=1)
    rows = np.concatenate([edges, loops])
    yield from send(_ranges(rows[:, 0], parts, ranges), rows)


def _similarities_by_range(
    edges: Edges, parts: list[StagedPart], ranges: int
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    documents, index = np.unique(edges.pairs, return_inverse=True)
    greatest = greatest_similarities(documents, index.reshape(-1, 2), edges)
    places = np.arange(len(documents))
    for number, mine in send(_ranges(documents, parts, ranges), places):
        yield number, (documents[mine], greatest[mine])


def settle(item: tuple[int, dict[str, Any]]) -> Iterator[Any]:
    """Give each document of a range the label that the rounds have found.

    Args:
        item: A range; its edges, with one to itself for each document that is a parent; its
            similarities.

    Yields:
        (range, Members); tagged, edges that are left if this is not yet the whole component: those
        between the parents of one document, and those of parents to their own.
    """
    number, values = item
    edges = distinct(np.concatenate(values[_EDGES]))
    # Rows ascend: a document's first is that with its least parent, its last that to itself.
    first = np.diff(edges[:, 0], prepend=-1) > 0
    documents, labels = edges[first].T
    least = labels[np.cumsum(first) - 1]
    is_loop = edges[:, 0] == edges[:, 1]
    left = np.concatenate(
        [
            np.stack([edges[:, 1], least], axis=1)[~is_loop & (edges[:, 1] != least)],
            np.stack([edges[:, 0], least], axis=1)[is_loop & (edges[:, 0] != least)],
        ]
    )
    if len(left):
        yield beam.pvalue.TaggedOutput(_LEFT, left)
    greatest = np.zeros(len(documents))
    for some, similarities in values[_SIMILARITIES]:
        places = np.searchsorted(documents, some)
        greatest[places] = np.maximum(greatest[places], similarities)
    yield number, Members(documents, labels, greatest)


def join_left(left: list[np.ndarray]) -> np.ndarray:
    """Join in one worker what the rounds have left; say how much it is.

    Returns:
        int64 [documents, 2], ascending: a document and the least one of its component.
    """
    if not left:
        return np.zeros((0, 2), np.int64)
    edges = np.concatenate(left)
    logging.getLogger(__name__).log(
        logging.WARNING if len(edges) > _MANY_EDGES else logging.INFO,
        "near duplicates: the rounds leave %s edges, which this worker joins alone",
        f"{len(edges):,}",
    )
    return stars(edges)


def _rank(
    item: tuple[int, Members], parts: list[StagedPart], labels: np.ndarray, tasks: int
) -> Iterator[Any]:
    """Yield a range's best copy of each cluster, to the label's owner; tagged, its Members."""
    number, members = item
    members = members._replace(labels=look_up(labels, members.labels))
    yield beam.pvalue.TaggedOutput(_MEMBERS, (number, members))
    best = best_copies(rank_copies(members.documents, members.labels, Staging(parts)))
    best = best.append_column("range", pa.array(np.full(len(best), number)))
    places = np.arange(len(best))
    for task, mine in send(owners(best.column("label").to_numpy(), tasks), places):
        yield task, best.take(pa.array(mine))


def _choose(item: tuple[int, Iterable[pa.Table]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (range, rows (label, best copy of all)) to each range that had a candidate."""
    candidates = pa.concat_tables(item[1])
    best = best_copies(candidates)
    winners = np.stack([best.column(name).to_numpy() for name in ("label", "document")], axis=1)
    labels = candidates.column("label").to_numpy()
    ranges = candidates.column("range").to_numpy()
    yield from send(ranges, np.stack([labels, look_up(winners, labels)], axis=1))


def _drop_copies(item: tuple[int, dict[str, Any]], config: CurateConfig) -> list[DroppedGroup]:
    """Return the documents of a range that go."""
    (members,) = item[1][_MEMBERS]
    winners = np.concatenate(item[1][_WINNERS])
    winners = winners[np.argsort(winners[:, 0])]
    kept = look_up(winners, members.labels)
    return drop_copies(members.documents, members.similarities, kept, config)
