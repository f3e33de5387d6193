"""TFRecord files of tf.Examples, sound and damaged."""

import struct

import google_crc32c
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.ingest.manifest import list_inputs
from components.ingest.readers import BadRecord, Document, ReadSettings, read_file

MEGABYTE = 1_000_000
on_files = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path, data=None, max_document_bytes=10 * MEGABYTE, **keys):
    """Writes `data`, reads the file: (documents, bad records)."""
    if data is not None:
        path.write_bytes(data)
    read_settings = ReadSettings("text", "id", "source", max_document_bytes, 0.05, **keys)
    items = list(read_file(list_inputs([str(path)])[0], read_settings))
    documents = [item for item in items if isinstance(item, Document)]
    return documents, [item for item in items if isinstance(item, BadRecord)]


def masked(data):
    """TFRecord's checksum, written out anew from TensorFlow's crc32c.h."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32)


def framed(data):
    """One record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def example(**features):
    """A serialised tf.Example of strings, bytes, whole numbers, or lists of these."""
    message = tf.train.Example()
    for name, value in features.items():
        for single in value if isinstance(value, list) else [value]:
            if isinstance(single, int):
                message.features.feature[name].int64_list.value.append(single)
            else:
                single = single.encode() if isinstance(single, str) else single
                message.features.feature[name].bytes_list.value.append(single)
    return message.SerializeToString()


def as_tfrecord(path, *serialized, compression=""):
    """Writes a TFRecord file with TensorFlow; returns its bytes."""
    with tf.io.TFRecordWriter(str(path), options=compression) as writer:
        for record in serialized:
            writer.write(record)
    return path.read_bytes()


# --- TFRecord ---------------------------------------------------------------------------------


def test_files_that_tensorflow_wrote(tmp_path):
    records = [example(text=f"text {i}", id=i) for i in range(300)]
    for compression, name in (("", "a.tfrecord"), ("GZIP", "a.tfrecord.gz")):
        data = as_tfrecord(tmp_path / name, *records, compression=compression)
        documents, bad = read(tmp_path / name, data)
        assert not bad
        assert [(d.doc_id, d.text) for d in documents] == [
            (b"%d" % i, b"text %d" % i) for i in range(300)
        ]


def test_examples_without_one_text(tmp_path):
    records = [
        example(text="before"),
        example(body="b", n=3),
        example(text=["two", "values"]),
        example(text=5),
        example(text=[]),
        b"\xff\xff no protocol buffer",
        b"",
        example(text="after", id=["two", "ids"], source=3),
    ]
    documents, bad = read(tmp_path / "a.tfrecord", b"".join(map(framed, records)))
    assert [(d.doc_id, d.source, d.text) for d in documents] == [
        (b"a.tfrecord:1", b"a", b"before"), (b"a.tfrecord:8", b"a", b"after"),
    ]  # fmt: skip
    assert [(b.record, b.reason) for b in bad] == [
        (2, "missing_text"), (3, "missing_text"), (4, "missing_text"), (5, "missing_text"),
        (6, "invalid_example"), (7, "missing_text"),
    ]  # fmt: skip
    assert "'text'; found body (bytes_list), n (int64_list)" in bad[0].detail


def test_bad_checksum_of_a_record_costs_only_it(tmp_path):
    records = [framed(example(text=text)) for text in ("one", "two", "three")]
    records[1] = records[1].replace(b"two", b"tvo")
    documents, bad = read(tmp_path / "a.tfrecord", b"".join(records))
    assert [d.text for d in documents] == [b"one", b"three"]
    assert [(b.record, b.reason) for b in bad] == [(2, "bad_checksum")]


def test_bad_checksum_of_a_length_ends_the_file(tmp_path):
    records = [framed(example(text=text)) for text in ("one", "two", "three")]
    records[1] = b"\x01" + records[1][1:]
    documents, bad = read(tmp_path / "a.tfrecord", b"".join(records))
    assert [d.text for d in documents] == [b"one"]
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert "length of record 2" in bad[0].detail


@on_files
@given(st.data())
def test_tfrecord_cut_or_damaged_anywhere(tmp_path, data):
    texts = [b"number %d" % i for i in range(6)]
    whole = b"".join(framed(example(text=text)) for text in texts)
    cut = data.draw(st.integers(0, len(whole)))
    flip = data.draw(st.none() | st.integers(0, len(whole) - 1))
    broken = bytearray(whole)
    if flip is not None:
        broken[flip] ^= data.draw(st.integers(1, 255))
    documents, bad = read(tmp_path / "a.tfrecord", bytes(broken[:cut]))
    found = [d.text for d in documents]
    assert found == [text for text in texts if text in found]  # nothing damaged, nothing twice
    if flip is None:
        record = len(whole) // len(texts)
        assert len(found) == cut // record
        assert len(bad) == (cut % record > 0)
