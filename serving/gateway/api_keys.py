"""API keys: a file of them, read anew when it changes, and the comparison in constant time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat

from serving.server.errors import Code, RequestError
from tokenmill.errors import TokenmillError

_LOG = logging.getLogger("tokenmill.serve")
_SCHEME = "bearer "
_COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)
# What every client can send in a header.
_KEY = re.compile(r"[!-~]+")


class ApiKeys:
    """Keys that callers need, of a file: one a line; # begins a comment.

    It does so at the beginning of a line or after a blank; elsewhere it is a part of the key.
    A file that changes is read anew at the next request. If it then cannot be read, or others may
    read it, the keys before it stay, and the log says so. One without any key lets nobody in.

    Args:
        path: The file.

    Raises:
        TokenmillError: It cannot be read, others than its owner may read it, it has no key, or one
            that no header can hold.
    """

    def __init__(self, path: str):
        self._path = path
        self._seen = self._state()
        self._digests = self._read()
        self._failure = ""
        if not self._digests:
            raise TokenmillError(
                f"{path}: no API key; expected one a line.",
                "Write one into it, such as `openssl rand -hex 24` makes.",
            )

    def check(self, authorization: str | None) -> None:
        """Compare a header `authorization` with all keys, in a time that tells nothing of them.

        Args:
            authorization: `Bearer KEY`, or None where there is no such header.

        Raises:
            RequestError: It holds none of the keys.
        """
        self._refresh()
        given = authorization or ""
        if given[: len(_SCHEME)].lower() != _SCHEME:
            raise RequestError(
                Code.UNAUTHENTICATED, "no API key; send it as the header Authorization: Bearer KEY"
            )
        digest = _digest(given[len(_SCHEME) :].strip())
        known = False
        for other in self._digests:
            known |= hmac.compare_digest(digest, other)
        if not known:
            raise RequestError(Code.UNAUTHENTICATED, "the API key is none of this server's")

    def _refresh(self) -> None:
        try:
            state = self._state()
            if state != self._seen:
                self._digests, self._seen, self._failure = self._read(), state, ""
                _LOG.info("api_keys_read", extra={"keys": len(self._digests)})
        except TokenmillError as error:
            if str(error) != self._failure:  # once, not at each request
                self._failure = str(error)
                _LOG.error("api_keys_not_read", extra={"reason": self._failure})

    def _state(self) -> tuple[int, ...]:
        """Return what changes with the file."""
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise _unreadable(self._path, error) from None
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _read(self) -> list[bytes]:
        try:
            with open(self._path, encoding="utf-8-sig") as source:
                if os.fstat(source.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise TokenmillError(
                        f"{self._path}: others than its owner may read or write this file of keys.",
                        f"Run `chmod 600 {self._path}`.",
                    )
                lines = [_COMMENT.sub("", line).strip() for line in source]
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(self._path, error) from None
        for number, line in enumerate(lines, 1):
            if line and not _KEY.fullmatch(line):
                raise TokenmillError(
                    f"{self._path}: line {number}: a key has letters, digits and signs of ASCII, "
                    "and no blank.",
                    "Write one key a line, such as `openssl rand -hex 24` makes.",
                )
        return [_digest(line) for line in lines if line]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _unreadable(path: str, error: Exception) -> TokenmillError:
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    return TokenmillError(
        f"{path}: cannot read the API keys: {reason}.", "Name a file of keys with --api-keys."
    )
