import time

import numpy as np
import pytest
from made_manifest import packed_manifest, packed_shard

from tokenmill.provenance import rows as provenance
from tokenmill.provenance.rows import documents_of_row, find_document, write_provenance
from tokenmill.records.keys import stable_hash
from tokenmill.rows.arrays import Parts
from tokenmill.rows.packed_split import PackedSplit


@pytest.fixture(scope="module", params=["causal-lm", "masked-lm"])
def packed(request, pack_documents, random_documents):
    documents = random_documents(200, seed=5)
    uri = pack_documents(documents, task=request.param, overlap_tokens=4)
    return request.param, uri, {d[0]: d[2] for d in documents}


def read(uri):
    split = PackedSplit(uri, "train")
    return split.read(np.arange(split.rows))


def test_a_document_is_found_token_by_token_where_it_lies(packed):
    task, uri, documents = packed
    batch = read(uri)
    for doc_id, ids in documents.items():
        placements = find_document(uri, "train", doc_id)
        asked = [*ids, 3] if task == "causal-lm" and ids else ids
        found = []
        for p in placements:
            assert p.doc_id == doc_id
            assert p.document_token_start == len(found)
            where = slice(p.row_offset, p.row_offset + p.length)
            found += batch.targets[p.row, where].tolist()
            assert batch.loss_weights[p.row, where].all()
            before = slice(p.row_offset - p.context_length, p.row_offset)
            assert not batch.loss_weights[p.row, before].any()
            assert len(set(batch.segment_ids[p.row, before.start : where.stop])) == 1
            context = asked[p.document_token_start - p.context_length : p.document_token_start]
            assert batch.targets[p.row, before].tolist() == context
        assert found == asked


def test_a_row_names_all_its_documents(packed):
    _, uri, documents = packed
    batch = read(uri)
    seen = []
    for row in range(len(batch.inputs)):
        placements = documents_of_row(uri, "train", row)
        assert {p.row for p in placements} == {row}
        segments = [batch.segment_ids[row, p.row_offset] for p in placements]
        assert segments == list(range(1, batch.segment_ids[row].max() + 1))
        assert sum(p.length for p in placements) == batch.loss_weights[row].sum()
        seen += placements
    by_document = [p for doc_id in documents for p in find_document(uri, "train", doc_id)]
    assert sorted(seen) == sorted(by_document)


def test_what_is_not_there_is_not_found(packed):
    _, uri, _ = packed
    assert find_document(uri, "train", b"no such document") == []
    with pytest.raises(IndexError, match="rows 0 to"):
        documents_of_row(uri, "train", PackedSplit(uri, "train").rows)


def test_repeated_ids_give_the_pieces_of_all_who_bear_them(pack_documents):
    uri = pack_documents([(b"twice", b"a", [20, 21]), (b"twice", b"b", [30])], shards=1)
    assert sorted(p.length for p in find_document(uri, "train", b"twice")) == [2, 3]


def test_ids_with_the_same_hash_are_told_apart(pack_documents, monkeypatch):
    monkeypatch.setattr(provenance, "stable_hash", lambda key: 7)
    uri = pack_documents([(b"a", b"s", [20, 21]), (b"b", b"s", [30])], shards=1)
    assert [(p.doc_id, p.length) for p in find_document(uri, "train", b"b")] == [(b"b", 2)]
    assert find_document(uri, "train", b"c") == []


def test_a_million_documents_are_searched_without_a_scan(tmp_path, monkeypatch):
    """A shard of a million documents, one a row: a look-up reads kilobytes, in milliseconds."""
    count = 1_000_000
    ids = [b"%d" % i for i in range(count)]
    hashes = np.random.default_rng(1).integers(0, 2**63, count).astype(np.uint64)
    known = dict(zip(ids, hashes.tolist(), strict=True))
    monkeypatch.setattr(provenance, "stable_hash", known.__getitem__)
    numbers = np.arange(count)
    parts = Parts(numbers, 0 * numbers, 0 * numbers + 5, 0 * numbers, numbers)
    (tmp_path / "Split-train").mkdir()
    path = str(tmp_path / "Split-train" / "rows-00000.provenance")
    write_provenance(path, ids, parts, count, 0)
    entry = packed_shard(rows=count, provenance="rows-00000.provenance")
    manifest = packed_manifest(rows=count, shards=[entry])
    monkeypatch.setattr(provenance, "read_packed_manifest", lambda uri, split: manifest)
    read_bytes = []
    real_read = provenance.RandomAccessFile.read

    def counted(self, offset, size):
        read_bytes.append(size)
        return real_read(self, offset, size)

    monkeypatch.setattr(provenance.RandomAccessFile, "read", counted)
    started = time.perf_counter()
    for i in range(0, count, 5000):
        assert find_document(str(tmp_path), "train", ids[i]) == [(ids[i], i, 0, 0, 5, 0)]
        assert documents_of_row(str(tmp_path), "train", i) == [(ids[i], i, 0, 0, 5, 0)]
    assert (time.perf_counter() - started) / 400 < 0.02
    assert sum(read_bytes) / 400 < 32_000


def test_the_hash_is_the_one_that_chooses_the_shard():
    assert provenance.stable_hash is stable_hash
