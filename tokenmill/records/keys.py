"""Keys of documents: of an id, which finds a document, and of a text, which finds its copies."""

import hashlib


def stable_hash(key: bytes) -> int:
    """Return a 64-bit hash that is the same in every process and version (unlike `hash()`)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def content_key(text: bytes) -> bytes:
    """Return a 16-byte key that is equal for texts that differ only in blanks and (ASCII) case."""
    collapsed = b" ".join(text.split()).lower()
    return hashlib.blake2b(collapsed, digest_size=16).digest()
