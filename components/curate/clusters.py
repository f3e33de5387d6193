"""Clusters of near duplicates: which copy of each stays, found by one worker.

Of many documents, distributed_clusters.py finds the same with many workers.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.curate.config import CurateConfig
from components.curate.deduplicate import NEAR_DUPLICATE, DroppedGroup, Edges, join_edges
from components.curate.near_duplicates import components
from tokenmill.records.staging import StagedPart, Staging

# What ranks the copies of a cluster, and the number of the document.
_RANK = ("is_train", "shortness", "doc_id", "key_0", "key_1", "digest", "document")


def rank_copies(documents: np.ndarray, labels: np.ndarray, staging: Staging) -> pa.Table:
    """Read what ranks the copies of a cluster.

    The best is a held-out one before a train one, then the longest, then the one with the least
    id; copies that share their id go by what else they hold.

    Args:
        documents: int64 [documents].
        labels: Integers [documents], equal in a cluster.
        staging: All parts.

    Returns:
        A row a document: its label, then the columns that rank it, the best first in ascending
        order, and at last its number (document).
    """
    rows = staging.rows_of(documents)
    return pa.table(
        {
            "label": labels,
            "is_train": staging.splits_of(documents).astype(np.uint8),
            "shortness": -rows["text_size"].astype(np.int64),
            "doc_id": pa.array(staging.ids_of(documents, rows), pa.large_binary()),
            "key_0": np.ascontiguousarray(rows["key"][:, 0]),
            "key_1": np.ascontiguousarray(rows["key"][:, 1]),
            "digest": np.ascontiguousarray(rows["digest"]),
            "document": documents,
        }
    )


def best_copies(ranked: pa.Table) -> pa.Table:
    """Return the row of the best copy of each cluster, labels ascending, from `rank_copies`."""
    keys = [(name, "ascending") for name in ("label", *_RANK)]
    order = pc.sort_indices(ranked, keys).to_numpy()
    labels = ranked.column("label").to_numpy()[order]
    return ranked.take(pa.array(order[np.diff(labels, prepend=-1) != 0]))


def drop_copies(
    documents: np.ndarray, similarities: np.ndarray, kept: np.ndarray, config: CurateConfig
) -> list[DroppedGroup]:
    """Return the documents that go: all but those that are the copy to keep.

    Args:
        documents: int64 [documents], those in clusters.
        similarities: float64 [documents], the greatest one to any other document.
        kept: int64 [documents], the best copy of the cluster of each.
        config: Has the least similarity of copies.
    """
    goes = kept != documents
    return [
        DroppedGroup(
            NEAR_DUPLICATE,
            documents[goes],
            similarities[goes],
            config.near_duplicate_min_jaccard,
            kept[goes],
        )
    ]


def greatest_similarities(documents: np.ndarray, index: np.ndarray, edges: Edges) -> np.ndarray:
    """Return the greatest similarity of each document to any other, float64 [documents].

    Args:
        documents: int64 [documents], those in `edges`.
        index: int64 [pairs, 2], the pairs of `edges` as places in `documents`.
        edges: The pairs and their similarities.
    """
    greatest = np.zeros(len(documents))
    for side in (0, 1):
        np.maximum.at(greatest, index[:, side], edges.similarities)
    return greatest


def cluster(
    edges: list[Edges], parts: list[StagedPart], config: CurateConfig
) -> list[DroppedGroup]:
    """Join near duplicates over any number of hops; drop all but the best of a cluster.

    The value recorded for one that goes is its greatest similarity to any other.
    """
    if not edges:
        return []
    joined = join_edges(edges)
    documents, index, labels = components(joined.pairs)
    best = best_copies(rank_copies(documents, labels, Staging(parts)))
    # Labels are numbered from 0 without a gap.
    kept = best.column("document").to_numpy()[labels]
    return drop_copies(documents, greatest_similarities(documents, index, joined), kept, config)
