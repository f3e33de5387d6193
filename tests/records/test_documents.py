"""Documents on disk: what goes in comes out, in files that depend on nothing but the documents."""

import os

import apache_beam as beam
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.beam_arguments import RUNNER
from tokenmill.files import read_json, write_json, write_text
from tokenmill.records.documents import (
    DOCUMENT_SCHEMA,
    ReadDocuments,
    decode_documents,
    document_batch,
    encode_documents,
)
from tokenmill.records.keys import stable_hash
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords

ROWS = st.lists(
    st.tuples(st.binary(), st.binary(), st.text().map(str.encode), *[st.binary()] * 4,
              st.none() | st.floats(0, 1, width=32)), min_size=1
)  # fmt: skip


def make_batch(rows) -> pa.RecordBatch:
    """A batch of (doc_id, source, text), or with label, language, metadata, messages, score."""
    return document_batch(*zip(*rows, strict=True))


@settings(deadline=None)
@given(ROWS)
def test_encoding_and_decoding_gives_the_documents_back(rows):
    batch = make_batch(rows)
    pairs = encode_documents(batch)
    assert [doc_id for doc_id, _ in pairs] == [row[0] for row in rows]
    decoded = decode_documents([serialized for _, serialized in pairs])
    assert decoded.schema == DOCUMENT_SCHEMA
    assert decoded.equals(batch)
    assert decoded.column(3).to_pylist() == [len(row[2]) for row in rows]


@settings(deadline=None)
@given(ROWS)
def test_encoding_depends_on_the_document_alone(rows):
    together = encode_documents(make_batch(rows))
    alone = [pair for row in rows for pair in encode_documents(make_batch([row]))]
    assert together == alone


def test_records_are_plain_examples():
    """Other tools read them: TFDV, Transform, TFMA."""
    ((_, serialized),) = encode_documents(document_batch([b"id"], [b"web"], ["é".encode()]))
    feature = tf.train.Example.FromString(serialized).features.feature
    assert {
        name: list(f.bytes_list.value or f.int64_list.value) for name, f in feature.items()
    } == {
        "doc_id": [b"id"],
        "source": [b"web"],
        "text": ["é".encode()],
        "byte_count": [2],
    }
    columns = [b"id"], [b"web"], [b"x"], [b"good"], [b"de"], [b'{"title": "T"}'], [b"[]"], [0.25]
    ((_, full),) = encode_documents(document_batch(*columns))
    feature = tf.train.Example.FromString(full).features.feature
    assert list(feature["label"].bytes_list.value) == [b"good"]
    assert list(feature["language"].bytes_list.value) == [b"de"]
    assert list(feature["metadata"].bytes_list.value) == [b'{"title": "T"}']
    assert list(feature["messages"].bytes_list.value) == [b"[]"]
    assert list(feature["quality_score"].float_list.value) == [0.25]
    names = (b"byte_count", b"doc_id", b"label", b"language", b"messages", b"metadata",
             b"quality_score", b"source", b"text")  # fmt: skip
    places = [full.index(name) for name in names]
    assert places == sorted(places)


def test_stable_hash_never_changes():
    """Splits, shards and samples hang on it: another value would reshuffle every corpus."""
    assert stable_hash(b"") == 16476032584258269876
    assert stable_hash(b"tokenmill") == 4886839208754584408


def test_hash_spreads_evenly():
    hashes = [stable_hash(b"%d" % i) for i in range(10_000)]
    assert len(set(hashes)) == 10_000
    assert max(hashes) < 2**64
    for shards in (2, 3, 7):
        counts = [sum(h % shards == shard for h in hashes) for shard in range(shards)]
        assert max(counts) - min(counts) < 400


def test_written_documents_are_read_back(tmp_path):
    rows = [(b"%d" % i, b"s", b"x" * i) for i in range(1100)]  # more than two batches
    for i in range(3):
        records = [record for _, record in encode_documents(make_batch(rows[i::3]))]
        write_tfrecords(f"{split_directory(str(tmp_path), 'eval')}/{i}.gz", records, gzip=True)
    with TestPipeline(runner=RUNNER) as pipeline:
        read = (
            pipeline
            | ReadDocuments(str(tmp_path), "eval")
            | beam.FlatMap(lambda batch: zip(*(c.to_pylist() for c in batch.columns), strict=True))
        )
        assert_that(read, equal_to([(*row, len(row[2]), *[b""] * 4, None) for row in rows]))


def failing_records():
    """Breaks off after some records."""
    yield from [b"one", b"two"]
    raise RuntimeError("the source broke off")


@pytest.mark.parametrize("gzip", [True, False])
def test_writing_that_breaks_off_leaves_no_file(tmp_path, gzip):
    path = str(tmp_path / "new" / "records")
    with pytest.raises(RuntimeError, match="broke off"):
        write_tfrecords(path, failing_records(), gzip)
    assert not os.path.exists(path)


def test_writing_that_breaks_off_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "records.gz")
    write_tfrecords(path, [b"old", b"older"], gzip=True)
    with pytest.raises(RuntimeError, match="broke off"):
        write_tfrecords(path, failing_records(), gzip=True)
    assert [r.numpy() for r in tf.data.TFRecordDataset(path, "GZIP")] == [b"old", b"older"]
    write_tfrecords(path, [b"new"], gzip=True)
    assert [r.numpy() for r in tf.data.TFRecordDataset(path, "GZIP")] == [b"new"]
    assert os.listdir(tmp_path) == ["records.gz"]


def test_text_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "text")
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    with open(path, encoding="utf-8") as source:
        assert source.read() == "old"


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_json_round_trip(tmp_path):
    path = str(tmp_path / "deep" / "value.json")

    @settings(deadline=None)
    @given(JSON_VALUES)
    def round_trip(value):
        write_json(path, value)
        assert read_json(path) == value

    round_trip()


def test_json_is_sorted_and_readable(tmp_path):
    path = tmp_path / "value.json"
    write_json(str(path), {"b": "ü", "a": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "a": 1,\n  "b": "ü"\n}\n'
