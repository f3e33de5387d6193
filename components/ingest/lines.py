"""Lines of a file, a block at a time: fast for short lines, bounded for endless ones."""

from collections.abc import Iterator
from typing import NamedTuple

# Not above the least CorpusConfig.max_record_bytes: a line inside one block is never too long.
_BLOCK_BYTES = 1 << 16


class TooLong(NamedTuple):
    """Stands for a line that was skipped."""

    size_bytes: int


def bounded_lines(handle, max_bytes: int) -> Iterator[bytes | TooLong]:
    r"""Yield each line without its line feed; what is longer than `max_bytes` is skipped.

    Args:
        handle: Has `read1`: an error in mid-file (a truncated archive) then loses nothing that
            came before it.
        max_bytes: At least 65,536. No more than this is held.
    """
    begun: list[bytes] = []  # a line whose end has not come yet
    size = 0
    while block := handle.read1(_BLOCK_BYTES):
        first, *lines = block.split(b"\n")
        size += len(first)
        if size <= max_bytes:
            begun.append(first)
        else:
            begun.clear()
        if not lines:
            continue
        yield b"".join(begun) if size <= max_bytes else TooLong(size)
        last = lines.pop()
        yield from lines
        begun, size = [last], len(last)
    if size:
        yield b"".join(begun) if size <= max_bytes else TooLong(size)
