"""Keys of documents: of an id, which finds a document, and of a text, which finds its copies."""

import hashlib

_SAME_ID = "#same-id-"


def own_id(doc_id: bytes, digest: int, number: int) -> bytes:
    """Return an id of its own for a document whose id another one has, too.

    Args:
        doc_id: The id that they share.
        digest: 64-bit hash of the document's record.
        number: Counts the documents of this id and digest, from 1.
    """
    again = f"-{number}" if number > 1 else ""
    return doc_id + f"{_SAME_ID}{digest:016x}{again}".encode()


def shared_id(doc_id: str) -> str:
    """Return the id that `own_id` was given, or the id itself."""
    return doc_id.rpartition(_SAME_ID)[0] or doc_id


def stable_hash(key: bytes) -> int:
    """Return a 64-bit hash that is the same in every process and version (unlike `hash()`)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def content_key(text: bytes) -> bytes:
    """Return a 16-byte key that is equal for texts that differ only in blanks and (ASCII) case."""
    collapsed = b" ".join(text.split()).lower()
    return hashlib.blake2b(collapsed, digest_size=16).digest()
