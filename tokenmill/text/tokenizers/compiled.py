"""The file of an imported tokenizer: all that the graph needs, computed once.

A zip archive (members stored as they are, without times, so that the same tokenizer gives the same
bytes) of `compiled.json` (`CompiledTokenizer`), of arrays and models that depend on the kind, and,
under `source/`, of the files that were imported, as they were.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tokenmill.contracts.base import check_document
from tokenmill.contracts.tokenizer import CompiledTokenizer
from tokenmill.errors import TokenmillError

_DESCRIPTION, _SOURCE = "compiled.json", "source/"
_TOKENS, _TOKEN_ENDS, _IS_TOKEN = "tokens.bin", "token_ends.npy", "is_token.npy"
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can say
_MAGIC = b"PK\x03\x04"


class CompiledFile(NamedTuple):
    """Content of the file.

    Attributes:
        description: Kind and settings.
        token_bytes: What each id stands for, UTF-8; None for control tokens and unused ids.
        parts: Content by name: arrays (.npy) and models.
        sources: The imported files, content by name.
    """

    description: CompiledTokenizer
    token_bytes: tuple[bytes | None, ...]
    parts: Mapping[str, bytes]
    sources: Mapping[str, bytes]

    def array(self, name: str) -> np.ndarray:
        """Return a part as an array."""
        return array_of(self.parts[name])


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array as the content of a .npy file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def array_of(content: bytes) -> np.ndarray:
    """Return the array of a .npy file's content."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def is_compiled(content: bytes) -> bool:
    """Tell whether content is a compiled tokenizer and not a SentencePiece model."""
    return content.startswith(_MAGIC)


def pack_tokenizer(file: CompiledFile) -> bytes:
    """Return the archive's bytes; the same for the same content."""
    tokens = [value or b"" for value in file.token_bytes]
    members = {
        _DESCRIPTION: json.dumps(file.description.to_json(), indent=2, sort_keys=True).encode(),
        _TOKENS: b"".join(tokens),
        _TOKEN_ENDS: array_bytes(np.cumsum([len(value) for value in tokens], dtype=np.int64)),
        _IS_TOKEN: array_bytes(np.array([value is not None for value in file.token_bytes])),
        **file.parts,
        **{f"{_SOURCE}{name}": content for name, content in file.sources.items()},
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), members[name])
    return out.getvalue()


def unpack_tokenizer(content: bytes, path: str) -> CompiledFile:
    """Read an archive.

    Args:
        content: Of the file.
        path: Its name, for messages.

    Raises:
        TokenmillError: It is damaged, or of another version.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        values = json.loads(members.pop(_DESCRIPTION))
        ends = array_of(members.pop(_TOKEN_ENDS)).tolist()
        is_token = array_of(members.pop(_IS_TOKEN)).tolist()
        tokens = members.pop(_TOKENS)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise TokenmillError(
            f"{path}: no compiled tokenizer: {error}.", "Run the step that wrote it anew."
        ) from error
    return CompiledFile(
        check_document(path, values, CompiledTokenizer),
        _cut(tokens, ends, is_token),
        {name: value for name, value in members.items() if not name.startswith(_SOURCE)},
        {
            name[len(_SOURCE) :]: value
            for name, value in members.items()
            if name.startswith(_SOURCE)
        },
    )


def _cut(tokens: bytes, ends: Sequence[int], is_token: Sequence[bool]) -> tuple[bytes | None, ...]:
    starts = [0, *ends[:-1]]
    return tuple(
        tokens[start:end] if there else None
        for start, end, there in zip(starts, ends, is_token, strict=True)
    )
