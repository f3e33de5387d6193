"""Files of hashes, sorted, of which a range can be read alone.

Equal hashes of many files lie in the same range, so that a task finds them by reading its range of
each. Files go through Beam's filesystems.
"""

import numpy as np

from tokenmill.files import open_file, write_bytes

# A hash that was filed, and the row (of its piece) that has it.
ENTRY = np.dtype([("hash", "<u8"), ("row", "<u4")])
BUCKETS = 256


def write_filed(path: str, hashes: np.ndarray) -> None:
    """Files hashes (uint64) without rows, aside first."""
    entries = np.zeros(len(hashes), ENTRY)
    entries["hash"] = hashes
    write_bytes(path, filed(entries))


def read_filed(path: str, part: int, parts: int) -> np.ndarray:
    """The hashes of one of `parts` ranges, uint64, ascending."""
    return read_entries(path, part, parts)["hash"]


def filed(entries: np.ndarray) -> bytes:
    """Where each bucket (by the first byte of the hash) begins, then all entries, sorted."""
    entries = entries[np.argsort(entries["hash"], kind="stable")]
    bounds = np.searchsorted(entries["hash"], np.arange(BUCKETS, dtype=np.uint64) << np.uint64(56))
    return np.append(bounds, len(entries)).astype("<u8").tobytes() + entries.tobytes()


def read_entries(path: str, part: int, parts: int) -> np.ndarray:
    """ENTRY [entries] of one of `parts` ranges, ascending by hash."""
    low, high = (BUCKETS * i // parts for i in (part, part + 1))
    header = 8 * (BUCKETS + 1)
    with open_file(path) as file:
        bounds = np.frombuffer(file.read(header), "<u8")
        start, end = int(bounds[low]), int(bounds[high])
        file.seek(header + start * ENTRY.itemsize)
        return np.frombuffer(file.read((end - start) * ENTRY.itemsize), ENTRY)
