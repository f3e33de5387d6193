"""Files of hashes, sorted, of which a range can be read alone.

Equal hashes of many files lie in the same range, so that a task finds them by reading its range of
each. Files go through Beam's filesystems.
"""

import numpy as np

from tokenmill.files import open_file, write_bytes

# A hash, and the row (of its part) that has it.
ENTRY = np.dtype([("hash", "<u8"), ("row", "<u4")])
BUCKETS = 256


def write_sorted_hashes(path: str, hashes: np.ndarray) -> None:
    """Write hashes (uint64 [hashes]) to a file, sorted and without rows, atomically."""
    entries = np.zeros(len(hashes), ENTRY)
    entries["hash"] = hashes
    write_bytes(path, encode_sorted(entries))


def read_hash_range(path: str, hash_range: int, hash_ranges: int) -> np.ndarray:
    """Read the hashes of one of `hash_ranges` ranges, uint64, ascending."""
    return read_entries(path, hash_range, hash_ranges)["hash"]


def encode_sorted(entries: np.ndarray) -> bytes:
    """Encode where each bucket (first byte of the hash) begins, then all entries, sorted."""
    entries = entries[np.argsort(entries["hash"], kind="stable")]
    bounds = np.searchsorted(entries["hash"], np.arange(BUCKETS, dtype=np.uint64) << np.uint64(56))
    return np.append(bounds, len(entries)).astype("<u8").tobytes() + entries.tobytes()


def read_entries(path: str, hash_range: int, hash_ranges: int) -> np.ndarray:
    """Read the entries (ENTRY) of one of `hash_ranges` ranges, ascending by hash."""
    low, high = (BUCKETS * i // hash_ranges for i in (hash_range, hash_range + 1))
    header = 8 * (BUCKETS + 1)
    with open_file(path) as file:
        bounds = np.frombuffer(file.read(header), "<u8")
        start, end = int(bounds[low]), int(bounds[high])
        file.seek(header + start * ENTRY.itemsize)
        return np.frombuffer(file.read((end - start) * ENTRY.itemsize), ENTRY)
