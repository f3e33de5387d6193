import json

import numpy as np
import pytest

from tokenmill.errors import TokenmillError
from tokenmill.provenance.document_index import DocumentIndex, write_shards
from tokenmill.provenance.explain import explain_document, explain_row, times_trained
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import RowOrder


@pytest.fixture(scope="module")
def index(tmp_path_factory, packed_documents):
    uri = str(tmp_path_factory.mktemp("ledger"))
    kept = [
        {
            "doc_id": name,
            "status": "kept",
            "split": split,
            "source": "made",
            "byte_count": 3 * n,
            "language": "en",
            "metadata": {},
        }
        for split, documents in packed_documents.items()
        for name, n in documents
    ]
    dropped = [
        {"doc_id": "short", "status": "dropped", "reason": "too_short", "value": 3.0,
         "threshold": 50.0, "kept_copy": "", "language": "en", "shared": "",
         "metadata": {}, "matched": "", "source": "made",
         "split": "train", "raw_bytes": 9,
         "excerpt": "Some text"}
    ]  # fmt: skip
    write_shards(
        uri,
        [
            [(f["doc_id"].encode(), json.dumps(f).encode() + b"\n") for f in statuses]
            for statuses in (kept, dropped)
        ],
    )
    return DocumentIndex(uri)


def test_a_document_leads_to_its_rows_and_a_row_back(index, rows_uri, packed_documents):
    for split, documents in packed_documents.items():
        for name, tokens in documents[::7]:
            (status,) = explain_document(index, rows_uri, name)
            assert status.status.split == split
            # Every token and the end is asked for exactly once.
            assert sum(p.length for p in status.placements) == tokens + 1
            for place in status.placements:
                row = explain_row(index, rows_uri, split, place.row)
                assert (place, "made") in row


def test_documents_that_came_with_one_id_have_each_their_own_rows(index, rows_uri):
    found = explain_document(index, rows_uri, "shared")
    assert [(d.status.doc_id, sum(p.length for p in d.placements)) for d in found] == [
        ("shared", 12), ("shared#same-id-00000000000000aa", 18),
    ]  # fmt: skip


def test_the_slots_hold_the_document(index, rows_uri):
    (status,) = explain_document(index, rows_uri, "train-010")  # longer than a row
    assert len(status.placements) > 1
    split = PackedSplit(rows_uri, "train")
    for place in status.placements:
        batch = split.read(np.array([place.row]))
        slots = slice(place.row_offset, place.row_offset + place.length)
        assert (batch.loss_weights[0, slots] == 1).all()
        assert len(set(batch.segment_ids[0, slots].tolist())) == 1


def test_a_dropped_document_keeps_its_reason(index, rows_uri):
    ((status, placements),) = explain_document(index, rows_uri, "short")
    assert placements is None
    assert (status.status, status.reason, status.value) == ("dropped", "too_short", 3.0)


def test_unknown_ids_rows_and_splits_are_said_to_be_so(index, rows_uri):
    with pytest.raises(TokenmillError, match="'train-0100'") as raised:
        explain_document(index, rows_uri, "train-0100")
    assert "train-010" in raised.value.hint
    with pytest.raises(TokenmillError, match="--row 99999"):
        explain_row(index, rows_uri, "train", 99_999)
    with pytest.raises(TokenmillError, match="--split test"):
        explain_row(index, rows_uri, "test", 0)


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_times_trained_are_those_of_the_training_order(rows_uri, steps):
    split, batch, seed = PackedSplit(rows_uri, "train"), 8, 11
    order = RowOrder(split, batch, seed)
    read = np.concatenate([order.rows_of_step(step)[0] for step in range(steps)])
    expected = np.bincount(read, minlength=split.rows)
    counted = times_trained(rows_uri, range(split.rows), steps, batch, seed)
    assert counted == dict(enumerate(expected.tolist()))
    assert sum(counted.values()) == steps * batch
