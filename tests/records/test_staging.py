"""Staging: what is staged is found again, and shards depend on the documents alone."""

import os
import pathlib
import random
import tempfile
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.records import staged_shards
from tokenmill.records import staging as staging_module
from tokenmill.records.keys import stable_hash
from tokenmill.records.staged_shards import sorted_shard, write_sorted_shard
from tokenmill.records.staging import (
    PartWriter,
    Staging,
    StagingWriter,
    read_rows,
    read_sources,
    remove_staging,
)
from tokenmill.records.tfrecord import read_tfrecords

SHARDS = 3
# (doc_id, source, what precedes the text in the payload, text)
DOCUMENT = st.tuples(
    st.binary(max_size=4),
    st.sampled_from([b"web", b"code", b"\xff"]),
    st.binary(max_size=5),
    st.text(max_size=6).map(str.encode),
)
PARTS = st.lists(
    st.tuples(st.sampled_from(["train", "eval"]), st.lists(DOCUMENT, min_size=1, max_size=8)),
    min_size=1,
    max_size=5,
)


def append(writer, documents, flags=0):
    """Appends documents, one batch."""
    ids, sources, heads, texts = (list(column) for column in zip(*documents, strict=True))
    payloads = [head + text for head, text in zip(heads, texts, strict=True)]
    sizes = [len(text) for text in texts]
    writer.append(ids, sources, payloads, sizes, [2 * size for size in sizes], flags)


def write_parts(directory, parts):
    """Writes (split, documents) as parts; returns them."""
    closed = []
    for number, (split, documents) in enumerate(parts):
        writer = PartWriter(f"{directory}/{number:03d}", split, SHARDS)
        append(writer, documents)
        closed.append(writer.close())
    return closed


@settings(deadline=None)
@given(PARTS, st.randoms())
def test_documents_are_found_by_reference(parts, rng):
    everything = [(split, *document) for split, documents in parts for document in documents]
    with tempfile.TemporaryDirectory() as directory:
        closed = write_parts(directory, parts)
        rng.shuffle(closed)
        staging = Staging(closed)
        assert staging.rows == len(everything)
        references = np.array([rng.randrange(staging.rows) for _ in range(12)], np.int64)
        wanted = [everything[i] for i in references.tolist()]
        rows = staging.rows_of(references)
        assert staging.ids_of(references, rows) == [d[1] for d in wanted]
        assert staging.texts_of(references, rows) == [d[4].decode() for d in wanted]
        assert staging.splits_of(references).tolist() == [d[0] == "train" for d in wanted]
        assert rows["text_size"].tolist() == [len(d[4]) for d in wanted]
        assert rows["raw_bytes"].tolist() == [2 * len(d[4]) for d in wanted]
        assert rows["shard"].tolist() == [stable_hash(d[1]) % SHARDS for d in wanted]
        for part, places, found in staging.by_part(references):
            payloads = pathlib.Path(f"{part.path}.payloads").read_bytes()
            assert [payloads[row["start"] :][: row["size"]] for row in found] == [
                wanted[i][3] + wanted[i][4] for i in places.tolist()
            ]
            names = read_sources(part)
            assert [names[i] for i in found["source"].tolist()] == [
                wanted[i][2] for i in places.tolist()
            ]


@settings(deadline=None)
@given(PARTS, st.randoms())
def test_shards_hold_each_live_document_once_sorted_and_in_any_parts(parts, rng):
    files = []
    documents = [(split, d) for split, of_part in parts for d in of_part]
    shuffled = rng.sample(documents, len(documents))
    regrouped = [
        (split, [d for s, d in shuffled if s == split])
        for split in ("train", "eval")
        if any(s == split for s, _ in shuffled)
    ]
    for arrangement in (parts, regrouped):
        with tempfile.TemporaryDirectory() as directory:
            staging = Staging(write_parts(f"{directory}/staging", arrangement))
            found = {}
            for split in ("train", "eval"):
                for shard in range(SHARDS):
                    path = f"{directory}/{split}-{shard}.gz"
                    count = write_sorted_shard(path, staging, split, shard)
                    found[split, shard] = list(read_tfrecords(path))
                    assert count == len(found[split, shard])
            files.append(found)
    for (split, shard), payloads in files[0].items():
        expected = sorted(
            (d[0], stable_hash(d[2] + d[3]), d[2] + d[3])
            for s, d in documents
            if s == split and stable_hash(d[0]) % SHARDS == shard
        )
        assert payloads == [payload for *_, payload in expected]
    assert files[0] == files[1]


def numbered(count, start=0):
    """Documents with ids, sources and texts of their own."""
    return [(b"%04d" % i, b"s%d" % (i % 3), b"h", b"text %d" % i) for i in range(start, count)]


def test_dropped_and_flagged_documents_are_not_written(tmp_path):
    documents = numbered(60)
    writer = PartWriter(str(tmp_path / "a"), "train", SHARDS)
    append(writer, documents[:30], flags=np.array([i % 5 == 0 for i in range(30)], np.uint8))
    append(writer, documents[30:])
    staging = Staging([writer.close()])
    dropped = np.array([i % 7 == 0 for i in range(60)])
    written = []
    for shard in range(SHARDS):
        path = str(tmp_path / f"{shard}.gz")
        write_sorted_shard(path, staging, "train", shard, lambda at, n: dropped[at : at + n])
        written += read_tfrecords(path)
    alive = [i for i in range(60) if i % 7 and not (i < 30 and i % 5 == 0)]
    assert sorted(written) == sorted(b"htext %d" % i for i in alive)


def test_a_shard_reads_from_more_parts_than_it_keeps_open(tmp_path, monkeypatch):
    monkeypatch.setattr(staged_shards, "_OPEN_FILES", 2)
    documents = numbered(60)
    random.Random(1).shuffle(documents)
    closed = write_parts(tmp_path, [("train", documents[i::10]) for i in range(10)])
    staging = Staging(closed)
    opened = len(os.listdir("/proc/self/fd"))
    records = []
    for shard in range(SHARDS):
        for record in sorted_shard(staging, shard, lambda first, part, rows: rows["flag"] == 0):
            assert len(os.listdir("/proc/self/fd")) <= opened + 2
            records.append(record.payload)
            doc_id = staging.ids_of(np.array([record.reference]), record.row.reshape(1))[0]
            assert record.payload == b"htext %d" % int(doc_id)
    assert len(records) == 60
    assert len(os.listdir("/proc/self/fd")) == opened


def test_an_empty_shard_is_a_file_without_records(tmp_path):
    path = str(tmp_path / "empty.gz")
    assert write_sorted_shard(path, Staging([]), "train", 0) == 0
    assert list(read_tfrecords(path)) == []


def test_a_staging_is_cut_into_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(staging_module, "PART_DOCUMENTS", 20)
    writer = StagingWriter(str(tmp_path / "staging" / "file"), "eval", SHARDS)
    parts = []
    for start in range(0, 57, 8):
        append(writer.part(), numbered(min(57, start + 8), start))
        parts += writer.full()
    parts += writer.rest()
    assert list(writer.rest()) == []
    assert [part.rows for part in parts] == [24, 24, 9]
    assert {part.split for part in parts} == {"eval"}
    staging = Staging(parts[::-1])
    every = np.arange(57)
    assert staging.ids_of(every, staging.rows_of(every)) == [d[0] for d in numbered(57)]


def test_a_few_rows_of_a_large_table_are_read_alone(tmp_path, monkeypatch):
    writer = PartWriter(str(tmp_path / "a"), "train", SHARDS)
    append(writer, numbered(2000))
    staging = Staging([writer.close()])
    some = np.array([1999, 3, 700, 3])
    expected = read_rows(staging.parts[0])[some]
    monkeypatch.setattr(staging_module, "read_rows", None)  # a look at the whole table would fail
    assert (staging.rows_of(some) == expected).all()
    assert staging.ids_of(some, expected) == [b"%04d" % i for i in some.tolist()]


def test_hashes_of_many_parts_are_found_by_range(tmp_path):
    hashes = np.random.default_rng(3).integers(0, 2**64, 90, dtype=np.uint64)
    hashes[45:] = hashes[:45]  # each twice, in another part
    parts = []
    for number in range(3):
        writer = PartWriter(str(tmp_path / str(number)), "train", SHARDS)
        append(writer, numbered(30 * number + 30, 30 * number))
        writer.add_hashes("kind", hashes[30 * number :][:30], np.arange(30))
        parts.append(writer.close())
    staging = Staging(parts)
    seen = []
    for hash_range in range(5):
        found, references = staging.hashes_in_range("kind", hash_range, 5)
        assert (hashes[references] == found).all()
        assert all((found == value).sum() == 2 for value in found.tolist())
        seen += references.tolist()
    assert sorted(seen) == list(range(90))


def contents(directory: pathlib.Path):
    """Name -> bytes of each file."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_a_pass_tried_again_replaces_its_files_by_the_same_bytes(tmp_path):
    found = []
    for _ in range(2):
        write_parts(tmp_path, [("train", numbered(50))])
        found.append(contents(tmp_path))
    assert found[0] == found[1]
    assert {name.split(".")[0] for name in found[0]} == {"000"}  # no temporary file is left


def test_what_breaks_off_leaves_no_file_and_spoils_none(tmp_path):
    (part,) = write_parts(tmp_path, [("train", numbered(50))])
    before = contents(tmp_path)
    writer = StagingWriter(str(tmp_path / "other"), "train", SHARDS)
    append(writer.part(), numbered(9))
    assert len(contents(tmp_path)) > len(before)
    writer.discard()
    writer.discard()
    assert contents(tmp_path) == before
    assert len(read_rows(part)) == 50


def test_removing_a_staging(tmp_path):
    write_parts(tmp_path / "staging", [("train", numbered(5))])
    (tmp_path / "other").write_bytes(b"")
    assert len(contents(tmp_path / "staging")) == 4
    remove_staging(str(tmp_path / "staging"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["other"]
    remove_staging(str(tmp_path / "staging"))


def test_writing_a_shard_does_not_hold_its_texts(tmp_path):
    """50 MB of text in one shard: Python holds a hundredth of it."""
    writer = PartWriter(str(tmp_path / "staging"), "train", 1)
    rng = random.Random(0)
    for i in range(500):
        text = rng.randbytes(100_000)
        writer.append([b"%d" % i], [b"s"], [text], [len(text)], [len(text)])
    staging = Staging([writer.close()])
    tracemalloc.start()
    try:
        assert write_sorted_shard(str(tmp_path / "shard.gz"), staging, "train", 0) == 500
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
