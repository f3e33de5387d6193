"""The key of a document, by which it finds its shard, its split and its place in an index."""

import hashlib


def stable_hash(key: bytes) -> int:
    """Return a 64-bit hash that is the same in every process and version (unlike `hash()`)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
