"""The TFRecord reader against TensorFlow's writer, and on files that are broken."""

import gzip
import tempfile

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.records import tfrecord
from tokenmill.records.tfrecord import read_tfrecords, write_tfrecords

RECORDS = [b"first record", b"", b"x" * 5000, b"last record"]


def written(path, records):
    """Writes records with TensorFlow, plain or gzipped as the name says; returns the path."""
    with tf.io.TFRecordWriter(str(path), "GZIP" if str(path).endswith(".gz") else "") as writer:
        for record in records:
            writer.write(record)
    return str(path)


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=100), max_size=20),
    st.sampled_from(["records", "records.gz"]),
    st.integers(1, 300),
)
def test_what_tensorflow_wrote_is_read_whatever_the_blocks(records, name, block_bytes):
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecord, "_READ_BYTES", block_bytes)
        assert list(read_tfrecords(written(f"{directory}/{name}", records))) == records


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=100), max_size=20),
    st.sampled_from(["records", "records.gz"]),
    st.integers(1, 300),
)
def test_tensorflow_reads_what_is_written_whatever_the_blocks(records, name, block_bytes):
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        path, compressed = f"{directory}/{name}", name.endswith(".gz")
        write_tfrecords(path, records, gzip=compressed)
        with open(path, "rb") as file:
            first = file.read()
        patch.setattr(tfrecord, "_WRITE_BYTES", block_bytes)
        write_tfrecords(path, records, gzip=compressed)
        dataset = tf.data.TFRecordDataset(path, "GZIP" if compressed else "")
        assert list(dataset.as_numpy_iterator()) == records
        if not compressed:
            with open(path, "rb") as file:
                assert file.read() == first


def test_a_record_larger_than_a_block_is_read(tmp_path):
    large = bytes(range(256)) * (5 << 12)
    assert len(large) > 4 * tfrecord._READ_BYTES
    path = written(tmp_path / "large.gz", [b"small", large, b"small"])
    assert list(read_tfrecords(path)) == [b"small", large, b"small"]


@pytest.mark.parametrize("name", ["records", "records.gz"])
def test_a_file_cut_off_anywhere_but_between_records_is_an_error(tmp_path, name):
    path = written(tmp_path / name, RECORDS)
    stored = (tmp_path / name).read_bytes()
    ends, end = {0}, 0
    for record in RECORDS:
        end += 16 + len(record)
        ends.add(end)
    for size in {*range(1, 80), *range(len(stored) - 40, len(stored)), len(stored) // 2}:
        (tmp_path / name).write_bytes(stored[:size])
        if name == "records" and size in ends:
            continue  # nothing tells that more records should follow
        # Of a gzip file of one byte nobody can tell what it was.
        with pytest.raises(ValueError, match=r"records.*(broken off|not a gzip file)"):
            list(read_tfrecords(path))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0, "the length of a record"),  # the length
        (9, "the length of a record"),  # its checksum
        (12, "a record has another checksum"),  # the data
        (12 + len(RECORDS[0]), "a record has another checksum"),  # their checksum
    ],
)
@pytest.mark.parametrize("name", ["records", "records.gz"])
def test_a_flipped_bit_is_an_error(tmp_path, name, at, message):
    path = written(tmp_path / "records", RECORDS)
    stored = bytearray((tmp_path / "records").read_bytes())
    stored[at] ^= 1
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(stored)) if name.endswith(".gz") else bytes(stored))
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        list(read_tfrecords(str(path)))
    dataset = tf.data.TFRecordDataset(str(path), "GZIP" if name.endswith(".gz") else "")
    with pytest.raises(tf.errors.DataLossError):  # TensorFlow thinks the same
        list(dataset.as_numpy_iterator())


def test_records_before_the_broken_one_are_read(tmp_path):
    path = written(tmp_path / "records", RECORDS)
    stored = (tmp_path / "records").read_bytes()
    (tmp_path / "records").write_bytes(stored[:-1])
    found = []
    with pytest.raises(ValueError, match="broken off"):
        found.extend(iter_into(found, read_tfrecords(path)))
    assert found == RECORDS[:-1]


def iter_into(found, records):
    """Appends as it goes, so that what came before an error is seen."""
    for record in records:
        found.append(record)
    return []


def test_what_is_not_gzipped_though_it_is_called_so_is_an_error(tmp_path):
    path = written(tmp_path / "records", RECORDS)
    (tmp_path / "records").rename(tmp_path / "records.gz")
    with pytest.raises(ValueError, match=r"records\.gz: not a gzip file"):
        list(read_tfrecords(f"{path}.gz"))


def test_damage_inside_the_compressed_stream_is_an_error(tmp_path):
    path = written(tmp_path / "records.gz", [b"%d" % (i * i) for i in range(5000)])
    stored = bytearray((tmp_path / "records.gz").read_bytes())
    for at in range(20, len(stored), len(stored) // 20):
        damaged = bytearray(stored)
        damaged[at] ^= 0x55
        (tmp_path / "records.gz").write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"records\.gz: "):
            list(read_tfrecords(path))
