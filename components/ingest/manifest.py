"""Which files a run reads: paths, directories and globs become one sorted, fixed list.

The list is a file itself (`manifest.jsonl`), named by its content: TFX's ExampleGen driver takes
its fingerprint for caching, and it stays in the run as the record of what was read.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from components.errors import TokenmillError

MANIFEST_NAME = "manifest.jsonl"
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson", ".json")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".zst")
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Attributes:
        path: Where it is.
        name: Its path relative to what the user named; part of document ids, so that moving the
            corpus does not rename its documents.
        size_bytes: Its size (as stored, compressed or not).
        modified: Modification time in seconds since 1970; with the size, it tells TFX's cache
            whether the file changed.
    """

    path: str
    name: str
    size_bytes: int
    modified: float


def bare_suffix(path: str) -> str:
    """The suffix that tells the format, in lower case, without that of the compression."""
    lower = path.lower()
    for suffix in COMPRESSION_SUFFIXES:
        lower = lower.removesuffix(suffix)
    return os.path.splitext(lower)[1]


def list_inputs(inputs: Sequence[str], option: str = "--input") -> list[InputFile]:
    """Resolves files, directories (walked, known suffixes only) and globs.

    Args:
        inputs: What the user named.
        option: Where the user named it, for messages.

    Raises:
        TokenmillError: A path matches nothing, or nothing at all is there to read.
    """
    found: dict[str, InputFile] = {}
    for pattern in inputs:
        matches = _match(pattern)
        if not matches:
            raise TokenmillError(
                f"{option} {pattern}: no such file, and no directory with text files in it.",
                f"Files read from a directory: {', '.join(JSON_LINES_SUFFIXES + TEXT_SUFFIXES)}, "
                f"each also with {', '.join(COMPRESSION_SUFFIXES)}.",
            )
        found.update((match.path, match) for match in matches)
    return sorted(found.values(), key=lambda file: (file.name, file.path))


def _match(pattern: str) -> list[InputFile]:
    if "://" not in pattern:
        pattern = os.path.abspath(os.path.expanduser(pattern))
    if FileSystems.exists(pattern) and not os.path.isdir(pattern):
        root, metadata = os.path.dirname(pattern), _glob(_literal(pattern))
    elif _GLOB.search(pattern) and not os.path.isdir(pattern):
        root, metadata = os.path.dirname(_GLOB.split(pattern)[0]), _glob(pattern)
    else:
        root = pattern.rstrip("/")
        metadata = [
            m
            for m in _glob(f"{_literal(root)}/**")
            if bare_suffix(m.path) in JSON_LINES_SUFFIXES + TEXT_SUFFIXES
            and not os.path.isdir(m.path)
        ]
    return [
        InputFile(
            path=m.path,
            name=m.path.removeprefix(root).lstrip("/"),
            size_bytes=m.size_in_bytes,
            modified=m.last_updated_in_seconds,
        )
        for m in metadata
    ]


def _literal(path: str) -> str:
    """A pattern that matches just this path: Beam takes every path for a pattern."""
    return _GLOB.sub(r"[\g<0>]", path)


def _glob(pattern: str) -> list[FileMetadata]:
    return list(FileSystems.match([pattern])[0].metadata_list)


def write_manifest(files: Sequence[InputFile], directory: str) -> str:
    """Writes the list once, in a directory named by its content; returns that directory."""
    text = "".join(json.dumps(asdict(file), sort_keys=True) + "\n" for file in files)
    target = os.path.join(directory, hashlib.sha256(text.encode()).hexdigest()[:16])
    path = os.path.join(target, MANIFEST_NAME)
    if not os.path.exists(path):  # never rewritten: its time is part of TFX's fingerprint
        os.makedirs(target, exist_ok=True)
        with open(f"{path}.writing", "w", encoding="utf-8") as out:
            out.write(text)
        os.rename(f"{path}.writing", path)
    return target


def read_manifest(path: str) -> list[InputFile]:
    """Reads a list that `write_manifest` wrote."""
    with FileSystems.open(path) as source:
        return [InputFile(**json.loads(line)) for line in source.read().decode().splitlines()]
