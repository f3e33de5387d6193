"""Filed hashes: every range read alone, and together all that was filed."""

import os
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.files import write_bytes
from tokenmill.records.sorted_hashes import (
    BUCKETS,
    ENTRY,
    encode_sorted,
    read_entries,
    read_hash_range,
    write_sorted_hashes,
)

HASHES = st.lists(
    st.integers(0, 2**64 - 1) | st.sampled_from([0, 1 << 56, (1 << 56) - 1, 2**64 - 1]),
    max_size=60,
)


@given(st.lists(HASHES, min_size=1, max_size=3), st.integers(1, BUCKETS))
def test_ranges_are_disjoint_and_together_everything(files, hash_ranges):
    with tempfile.TemporaryDirectory() as directory:
        paths = [os.path.join(directory, str(i)) for i in range(len(files))]
        for path, hashes in zip(paths, files, strict=True):
            write_sorted_hashes(path, np.array(hashes, np.uint64))
        range_of = {}
        for path, hashes in zip(paths, files, strict=True):
            ranges = [
                read_hash_range(path, hash_range, hash_ranges).tolist()
                for hash_range in range(hash_ranges)
            ]
            assert [h for found in ranges for h in found] == sorted(hashes)
            for hash_range, found in enumerate(ranges):
                for value in found:  # equal hashes meet, whichever file they are in
                    assert range_of.setdefault(value, hash_range) == hash_range
        assert sorted(os.listdir(directory)) == [str(i) for i in range(len(files))]


@given(HASHES)
def test_rows_go_with_their_hashes(hashes):
    entries = np.zeros(len(hashes), ENTRY)
    entries["hash"], entries["row"] = np.array(hashes, np.uint64), np.arange(len(hashes))
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "deep", "entries.gz")  # the name says nothing here
        write_bytes(path, encode_sorted(entries))
        found = read_entries(path, 0, 1)
    assert [hashes[row] for row in found["row"].tolist()] == found["hash"].tolist()
    assert sorted(found["row"].tolist()) == list(range(len(hashes)))


def test_filing_again_replaces_with_the_same_bytes(tmp_path):
    path = tmp_path / "hashes"
    hashes = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)
    contents = []
    for order in (hashes, hashes[::-1]):
        write_sorted_hashes(str(path), order)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert os.listdir(tmp_path) == ["hashes"]


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="absent"):
        read_hash_range(str(tmp_path / "absent"), 0, 1)
