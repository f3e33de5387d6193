"""What is known of a document beside its text: title, URL, date and license, as a JSON object."""

from collections.abc import Mapping

import orjson

METADATA_FIELDS = ("title", "url", "date", "license")
MAX_VALUE_BYTES = 2_000
"""Of a value, as UTF-8: a longer title is cut, another value left out."""


def encode_metadata(values: Mapping[str, str]) -> bytes:
    """Encode what is known of a document as the feature `metadata`.

    Args:
        values: Some of METADATA_FIELDS; others are left out. Runs of blanks become one.

    Returns:
        A JSON object with sorted keys, as UTF-8; nothing if no value is left.
    """
    kept = {}
    for name in METADATA_FIELDS:
        if not (text := " ".join(values.get(name, "").split())):
            continue
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_VALUE_BYTES:
            if name != "title":  # a part of a URL is another one
                continue
            data = data[:MAX_VALUE_BYTES]
        kept[name] = data.decode("utf-8", "ignore").rstrip()
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS) if kept else b""


def decode_metadata(data: bytes) -> dict[str, str]:
    """Return what `encode_metadata` was given, by name; nothing of an empty feature."""
    return orjson.loads(data) if data else {}
