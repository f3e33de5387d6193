"""Ids that several documents share: all but one of them get an id of their own."""

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa

from tokenmill.records.documents import decode_documents, encode_documents
from tokenmill.records.keys import own_id, stable_hash
from tokenmill.records.staging import Staging, read_rows


def id_keys(doc_ids: list[bytes]) -> np.ndarray:
    """Return what ingest stages as the documents' keys: hashes of their ids, uint64 [ids, 2]."""
    keys = np.zeros((len(doc_ids), 2), np.uint64)
    keys[:, 0] = [stable_hash(doc_id) for doc_id in doc_ids]
    return keys


def own_ids(staging: Staging, shard: int) -> dict[int, bytes]:
    """Find the documents of a shard, of both splits, that need an id of their own.

    Which one keeps the id, and what the others are called, goes by their content, and not by the
    order of files: the same documents get the same ids.

    Args:
        staging: All parts; the keys of their rows are `id_keys`.
        shard: Which shard; documents of one id are in the same.

    Returns:
        New ids by the document's number in the staging.
    """
    references, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for first, part in zip(staging.first, staging.parts, strict=False):
        if shard in part.shards:
            rows = read_rows(part)
            places = np.flatnonzero(rows["shard"] == shard)
            references.append(first + places)
            keys.append(rows["key"][places, 0])
    all_references, all_keys = np.concatenate(references), np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    again = np.flatnonzero(np.diff(all_keys[order]) == 0)
    shared = np.sort(all_references[order[np.union1d(again, again + 1)]])
    if not len(shared):
        return {}
    rows = staging.rows_of(shared)
    documents: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for reference, row, doc_id in zip(
        shared.tolist(), rows, staging.ids_of(shared, rows), strict=True
    ):
        documents[doc_id].append((int(row["digest"]), reference))
    found = {}
    for doc_id, of_id in documents.items():  # several, unless just the hashes are equal
        numbers: Counter[int] = Counter()
        for digest, reference in sorted(of_id)[1:]:
            numbers[digest] += 1
            found[reference] = own_id(doc_id, digest, numbers[digest])
    return found


def rename(record: bytes, doc_id: bytes) -> bytes:
    """Return the record of a document (a serialized tf.Example) with another id."""
    batch = decode_documents([record])
    columns = [pa.array([doc_id], pa.large_binary()), *batch.columns[1:]]
    return encode_documents(pa.RecordBatch.from_arrays(columns, schema=batch.schema))[0][1]
