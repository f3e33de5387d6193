"""Files of hashes, sorted, of which a range can be read alone.

Equal hashes of many files lie in the same range, so that a task finds them by reading its range of
each. Files go through Beam's filesystems.
"""

import uuid
from typing import BinaryIO

import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

# A hash that was filed, and the row (of its piece) that has it.
ENTRY = np.dtype([("hash", "<u8"), ("row", "<u4")])
BUCKETS = 256


def write_filed(path: str, hashes: np.ndarray) -> None:
    """Files hashes (uint64) without rows, aside first."""
    entries = np.zeros(len(hashes), ENTRY)
    entries["hash"] = hashes
    aside = f"{path}.{uuid.uuid4().hex}"
    with create_plain(aside) as file:
        file.write(filed(entries))
    FileSystems.rename([aside], [path])


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
    with open_plain(path) as file:
        bounds = np.frombuffer(file.read(header), "<u8")
        start, end = int(bounds[low]), int(bounds[high])
        file.seek(header + start * ENTRY.itemsize)
        return np.frombuffer(file.read((end - start) * ENTRY.itemsize), ENTRY)


def open_plain(path: str) -> BinaryIO:
    """Opens a file as it is, whatever its name ends in."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def create_plain(path: str) -> BinaryIO:
    """Creates a file, and its directory where there is need of one."""
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
