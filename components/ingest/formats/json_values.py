"""JSON that is not a value a line: an array of objects, or objects that go over many lines."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

_BLOCK_BYTES = 1 << 16
_PRETTY = re.compile(rb"""(?:\xef\xbb\xbf)?\s*(?:\[\s*(?:[{\]"]|$)|\{\s*\n)""")
_BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")


def begins_pretty(handle: BinaryIO) -> bool:
    """Tell whether a file begins as an array of objects, or as an object of many lines.

    Args:
        handle: Has `peek`.
    """
    return _PRETTY.match(cast(io.BufferedReader, handle).peek(_BLOCK_BYTES)) is not None


def json_values(handle: BinaryIO, max_bytes: int) -> Iterator[tuple[int, Any, int]]:
    """Yield (number from 1, value, characters) of each value of an array, or one after the other.

    Args:
        handle: UTF-8; other bytes become lone surrogates, which `surrogateescape` turns back.
        max_bytes: No longer value is parsed.

    Raises:
        ValueError: What follows is no JSON, or too large: nobody knows where the next one begins.
    """
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    parse = json.JSONDecoder().raw_decode
    text, at, ended, number = "", 0, False, 0
    wanted, depth = _BLOCK_BYTES, 0
    while True:
        between = _BETWEEN.match(text, at)
        if between:
            depth += between[0].count("[") - between[0].count("]")
            at = between.end()
        if at == len(text) and ended:
            if depth > 0:
                raise ValueError(f"the array has no end: {number} values, and no ] behind them")
            return
        try:
            value, end = parse(text, at)
            # A number may go on in the next block; what ends in } or ] does not.
            if end == len(text) and not ended and text[end - 1] not in "}]":
                raise ValueError("cut")
        except (ValueError, RecursionError) as error:
            if ended or isinstance(error, RecursionError) or len(text) - at > max_bytes:
                message = f"{error}" if ended else f"{error}, or longer than {max_bytes:,} bytes"
                raise ValueError(f"the JSON value number {number + 1}: {message}"[:300]) from None
            blocks = [text[at:]]
            at = read = 0
            while read < wanted and not ended:
                data = handle.read(_BLOCK_BYTES)
                ended = not data
                read += len(data)
                blocks.append(decode(data, ended))
            text = "".join(blocks)
            wanted *= 2  # so that a long value is parsed a few times, and not for every block
            continue
        number, wanted = number + 1, _BLOCK_BYTES
        yield number, value, end - at
        at = end
