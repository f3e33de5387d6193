"""TFRecord files of tf.Examples, sound and damaged."""

import tensorflow as tf
from format_files import example, framed, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

on_files = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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
