import hashlib
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import pack
from made_manifest import packed_manifest, packed_shard

from tokenmill.contracts.packed_rows import RowFormat, write_packed_manifest
from tokenmill.errors import TokenmillError
from tokenmill.rows.arrays import Row, Rows
from tokenmill.rows.codec import decode_rows, densify, encode_rows, row_dtype
from tokenmill.rows.packed_split import PackedSplit, verify_split, write_shard

PLAIN = RowFormat(dtype="<u2", last_targets=True, context=False)


def encode(row, dtype):
    (record,) = encode_rows(Rows.join([row]), PLAIN.model_copy(update={"dtype": dtype}))
    return record


def decode(record, dtype):
    (row,) = decode_rows([record], PLAIN.model_copy(update={"dtype": dtype})).split()
    return row


def assert_same_row(a, b):
    for x, y in zip(
        (a.segment_lengths, a.inputs, a.last_targets),
        (b.segment_lengths, b.inputs, b.last_targets),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


@st.composite
def any_rows(draw, largest_id):
    ids = st.integers(0, largest_id)
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=10))
    total = sum(lengths)
    return Row(
        np.array(lengths, np.int32),
        np.array(draw(st.lists(ids, min_size=total, max_size=total)), np.int32),
        np.array(draw(st.lists(ids, min_size=len(lengths), max_size=len(lengths))), np.int32),
    )


@pytest.mark.parametrize(("vocab_size", "width"), [(300, 2), (65_536, 2), (65_537, 4)])
def test_ids_take_two_bytes_as_long_as_they_fit(vocab_size, width):
    assert np.dtype(row_dtype(vocab_size)).itemsize == width


@settings(deadline=None)
@given(any_rows(largest_id=65_535))
def test_rows_of_two_bytes_come_back(row):
    record = encode(row, "<u2")
    assert len(record) == 2 * (1 + 2 * len(row.segment_lengths) + len(row.inputs))
    assert_same_row(decode(record, "<u2"), row)


@settings(deadline=None)
@given(any_rows(largest_id=2**31 - 1))
def test_rows_of_four_bytes_come_back(row):
    assert_same_row(decode(encode(row, "<u4"), "<u4"), row)


def test_the_largest_id_of_a_vocabulary_survives():
    for vocab_size in (65_536, 65_537, 1_000_000):
        ids = np.array([2, vocab_size - 1], np.int32)
        row = Row(np.array([2], np.int32), ids, np.array([vocab_size - 1], np.int32))
        dtype = row_dtype(vocab_size)
        assert_same_row(decode(encode(row, dtype), dtype), row)


def test_the_worked_example_of_the_docstring():
    rows = pack([np.array([7, 8]), np.array([9])], 6)
    batch = densify(rows, 6)
    assert batch.inputs.tolist() == [[2, 7, 8, 2, 9, 0]]
    assert batch.targets.tolist() == [[7, 8, 3, 9, 3, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0]]
    assert batch.loss_weights.tolist() == [[1, 1, 1, 1, 1, 0]]
    assert [a.dtype for a in batch] == [np.int32] * 4 + [np.float32]


def test_padding_is_zero_everywhere():
    batch = densify(pack([np.array([250, 260])], 8), 8)
    for array in batch:
        assert not array[0, 3:].any()


def test_no_rows_give_an_empty_batch():
    assert all(a.shape == (0, 5) for a in densify([], 5))


def write_split(directory, shards_of_rows, **changes):
    """A split of hand-made shards under `directory`."""
    split = directory / "Split-train"
    split.mkdir(parents=True)
    shards = [
        write_shard(str(split), f"rows-{i:05d}", Rows.join(rows), PLAIN)
        for i, rows in enumerate(shards_of_rows)
    ]
    manifest = packed_manifest(
        row_format=PLAIN,
        sequence_length=16,
        rows=sum(len(rows) for rows in shards_of_rows),
        shards=[packed_shard(**shard.to_json()) for shard in shards],
        **changes,
    )
    write_packed_manifest(str(split), manifest)
    return shards


def some_rows(count, seed):
    rng = np.random.default_rng(seed)
    return pack([rng.integers(4, 300, rng.integers(9, 15)) for _ in range(count)], 16)


def test_rows_are_found_in_the_right_shard_even_beside_an_empty_one(tmp_path):
    shards = [[], some_rows(3, 1), [], some_rows(4, 2), []]
    write_split(tmp_path, shards)
    split = PackedSplit(str(tmp_path), "train")
    rows = [row for shard in shards for row in shard]
    assert split.rows == len(rows) == 7
    numbers = np.array([6, 0, 3, 2, 2, 5])
    expected = densify([rows[i] for i in numbers], 16)
    for a, b in zip(split.read(numbers), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_shard_is_a_plain_tfrecord_file_with_its_checksum(tmp_path):
    rows = some_rows(5, 3)
    (entry,) = write_split(tmp_path, [rows])
    path = tmp_path / "Split-train" / entry.file
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    assert records == [encode(row, "<u2") for row in rows]
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry.bytes == path.stat().st_size
    assert entry.rows == len(rows)
    assert not list(path.parent.glob("*.tmp"))


def test_rows_of_256_take_at_most_2_2_bytes_a_token(tmp_path):
    rng = np.random.default_rng(11)
    lengths = rng.lognormal(5.0, 1.2, 1000).astype(int) + 1
    rows = pack([rng.integers(4, 4096, n) for n in lengths], 256)
    entry = write_shard(str(tmp_path), "rows", Rows.join(rows), PLAIN)
    assert entry.bytes / lengths.sum() <= 2.2


def test_an_unknown_format_is_refused_by_name(tmp_path):
    write_split(tmp_path, [some_rows(1, 4)], format="tokenmill-rows-9")
    with pytest.raises(TokenmillError, match=r"tokenmill-rows-9.*tokenmill-rows-2"):
        PackedSplit(str(tmp_path), "train")


@pytest.fixture
def written(pack_documents, random_documents):
    uri = pathlib.Path(pack_documents(random_documents(60, seed=6), shards=2))
    return uri, uri / "Split-train" / "rows-00001.tfrecord"


def damage(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data)))


def flip(place):
    def change(data):
        data[place] ^= 0x10
        return data

    return change


def read_all(uri):
    split = PackedSplit(str(uri), "train")
    return split.read(np.arange(split.rows))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (flip(3), r"row 0 at byte 0: the record's header is damaged"),
        (flip(9), r"row 0 at byte 0: the record's header is damaged"),
        (flip(14), r"row 0 at byte 0: the record's checksum \(CRC-32C\)"),
        (flip(-1), r"row \d+ at byte \d+: the record's checksum"),
        (flip(-30), r"row \d+ at byte \d+: the record's checksum"),
        (lambda data: data[:-7], r"row \d+ at byte \d+: the file ends after \d+ of \d+ bytes"),
        (lambda data: data[:100], r"row \d+ at byte \d+: the file ends"),
        (lambda data: b"", r"row 0 at byte 0: the file ends after 0"),
    ],
)
def test_a_damaged_shard_is_refused_by_file_and_row(written, change, complaint):
    uri, path = written
    damage(path, change)
    with pytest.raises(TokenmillError, match=r"rows-00001\.tfrecord: " + complaint):
        read_all(uri)
    with pytest.raises(TokenmillError, match=r"rows-00001\.tfrecord: SHA-256"):
        verify_split(str(uri), "train")


def test_rows_beside_a_damaged_one_are_still_read(written):
    uri, path = written
    whole = read_all(uri)
    damage(path, flip(-20))
    split = PackedSplit(str(uri), "train")
    for row in range(split.rows - 1):
        np.testing.assert_array_equal(split.read(np.array([row])).inputs[0], whole.inputs[row])
    with pytest.raises(TokenmillError, match="checksum"):
        split.read(np.array([split.rows - 1]))


@pytest.mark.parametrize("change", [flip(9), lambda data: data[:-8], lambda data: b""])
def test_a_damaged_index_is_refused(written, change):
    uri, path = written
    damage(path.with_suffix(".index"), change)
    with pytest.raises(TokenmillError, match=r"rows-00001\.index: the index of \d+ rows"):
        read_all(uri)


@pytest.mark.parametrize("suffix", [".tfrecord", ".index"])
def test_a_missing_file_is_named(written, suffix):
    uri, path = written
    path.with_suffix(suffix).unlink()
    with pytest.raises(TokenmillError, match=rf"rows-00001\{suffix}: the file is missing"):
        read_all(uri)
    with pytest.raises(TokenmillError, match=rf"rows-00001\{suffix}: the file is missing"):
        verify_split(str(uri), "train")


def test_a_whole_split_is_verified(written):
    uri, path = written
    suffixes = (".tfrecord", ".index", ".provenance")
    files = [f for f in path.parent.iterdir() if f.suffix in suffixes]
    assert verify_split(str(uri), "train") == sum(f.stat().st_size for f in files)


def test_several_threads_read_at_once(written):
    uri, _ = written
    split = PackedSplit(str(uri), "train")
    whole = read_all(uri)
    orders = [np.random.default_rng(i).permutation(split.rows) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(split.read, orders), strict=True):
            np.testing.assert_array_equal(batch.inputs, whole.inputs[order])
