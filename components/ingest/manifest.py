"""Which files a run reads: paths, directories and globs become one sorted, fixed list.

The list is a file itself, in a directory named by its content: TFX's ExampleGen driver takes its
fingerprint for caching, and it stays in the run as the record of what was read. Its own name tells
the driver the span.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from components.ingest.spans import SPAN_SPEC, choose_span, span_tokens
from tokenmill.errors import TokenmillError
from tokenmill.files import open_file, write_text

# TFX's driver fills in the span; 0 where the input has none, as in TFX.
MANIFEST_PATTERN = f"manifest-span-{SPAN_SPEC}.jsonl"
FORMATS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".text", ".md", ".rst"),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet", ".pq"),
    "tfrecord": (".tfrecord", ".tfrecords"),
}
_FORMAT_BY_SUFFIX = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
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
        span: The number that {SPAN} stood for in what the user named, if it was there.
    """

    path: str
    name: str
    size_bytes: int
    modified: float
    span: int | None = None


def bare_suffix(path: str) -> str:
    """Return the suffix that tells the format, in lower case, without that of the compression."""
    lower = path.lower()
    for suffix in COMPRESSION_SUFFIXES:
        lower = lower.removesuffix(suffix)
    return os.path.splitext(lower)[1]


def format_of(path: str) -> str:
    """Return the format by the suffix; anything unknown is text."""
    return _FORMAT_BY_SUFFIX.get(bare_suffix(path), "text")


def list_inputs(
    inputs: Sequence[str], option: str = "--input", span: int | None = None
) -> list[InputFile]:
    """Resolve files, directories (walked, known suffixes only), globs and spans.

    A pattern with {SPAN} means the one whose number is `span`, or the newest (greatest) that is
    there for every such pattern; files are named as if the user had written the number.

    Args:
        inputs: What the user named.
        option: Where the user named it, for messages.
        span: Which span to read; None for the newest.

    Raises:
        TokenmillError: A path matches nothing, or nothing at all is there to read.
    """
    found: dict[str, InputFile] = {}
    patterns = [_absolute(pattern) for pattern in inputs]
    tokens = {
        pattern: span_tokens(pattern, [m.path for m in _glob_spans(pattern)], option)
        for pattern in patterns
        if SPAN_SPEC in pattern
    }
    span = choose_span(tokens, span, option)
    for given, pattern in zip(inputs, patterns, strict=True):
        if pattern in tokens and span is not None:
            filled = [pattern.replace(SPAN_SPEC, token) for token in tokens[pattern][span]]
            matches = [replace(m, span=span) for name in filled for m in _match(name)]
        else:
            matches = _match(pattern)
        if not matches:
            raise TokenmillError(
                f"{option} {given}: no such file, and no directory with text files in it.",
                f"Files read from a directory: {', '.join(_FORMAT_BY_SUFFIX)}, "
                f"each also with {', '.join(COMPRESSION_SUFFIXES)}.",
            )
        found.update((match.path, match) for match in matches)
    files = _with_distinct_names(list(found.values()))
    return sorted(files, key=lambda file: (file.name, file.path))


def _with_distinct_names(files: list[InputFile]) -> list[InputFile]:
    """Give files that share a name more of their paths: names are part of document ids.

    That happens when several directories are named that hold files of the same name.
    """
    counts = Counter(file.name for file in files)
    if max(counts.values(), default=0) < 2:
        return files
    root = os.path.commonpath([file.path for file in files])
    return [
        replace(file, name=file.path[len(root) :].lstrip("/")) if counts[file.name] > 1 else file
        for file in files
    ]


def _absolute(pattern: str) -> str:
    return pattern if "://" in pattern else os.path.abspath(os.path.expanduser(pattern))


def _glob_spans(pattern: str) -> list[FileMetadata]:
    """Match any span of the pattern: files, and those under directories."""
    wild = pattern.replace(SPAN_SPEC, "*")
    return [*_glob(wild), *_glob(f"{wild.rstrip('/')}/**")]


def _match(pattern: str) -> list[InputFile]:
    if FileSystems.exists(pattern) and not os.path.isdir(pattern):
        root, metadata = os.path.dirname(pattern), _glob(_literal(pattern))
    elif _GLOB.search(pattern) and not os.path.isdir(pattern):
        root, metadata = os.path.dirname(_GLOB.split(pattern)[0]), _glob(pattern)
    else:
        root = pattern.rstrip("/")
        metadata = [
            m
            for m in _glob(f"{_literal(root)}/**")
            if bare_suffix(m.path) in _FORMAT_BY_SUFFIX and not os.path.isdir(m.path)
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
    """Return a pattern that matches just this path: Beam takes every path for a pattern."""
    return _GLOB.sub(r"[\g<0>]", path)


def _glob(pattern: str) -> list[FileMetadata]:
    return list(FileSystems.match([pattern])[0].metadata_list)


def write_manifest(files: Sequence[InputFile], directory: str) -> str:
    """Write the list once, in a directory named by its content; return that directory."""
    text = "".join(json.dumps(asdict(file), sort_keys=True) + "\n" for file in files)
    target = os.path.join(directory, hashlib.sha256(text.encode()).hexdigest()[:16])
    span = max((file.span for file in files if file.span is not None), default=0)
    path = os.path.join(target, MANIFEST_PATTERN.replace(SPAN_SPEC, str(span)))
    if not FileSystems.exists(path):
        write_text(path, text)
    if "://" not in path and os.path.getmtime(path):
        os.utime(path, (0, 0))  # part of TFX's fingerprint: the same in a copy of the directory
    return target


def read_manifest(directory: str) -> tuple[list[InputFile], int]:
    """Read the list in a directory that `write_manifest` made, and the number of its span."""
    pattern = os.path.join(_literal(directory), MANIFEST_PATTERN)
    (path,) = (m.path for m in _glob(pattern.replace(SPAN_SPEC, "*")))
    with open_file(path) as source:
        files = [InputFile(**json.loads(line)) for line in source.read().decode().splitlines()]
    return files, int(path.rpartition("-")[2].removesuffix(".jsonl"))
