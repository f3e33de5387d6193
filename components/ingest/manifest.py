"""Which files a run reads: paths, directories and globs become one sorted, fixed list.

The list is a file itself, in a directory named by its content: TFX's ExampleGen driver takes its
fingerprint for caching, and it stays in the run as the record of what was read. Its own name tells
the driver the span.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from components.ingest.file_names import (
    COMPRESSION_SUFFIXES,
    FORMAT_BY_SUFFIX,
    is_hidden,
    why_left_out,
)
from components.ingest.spans import SPAN_SPEC, choose_span, span_tokens
from tokenmill.errors import TokenmillError
from tokenmill.files import open_file, write_text

# TFX's driver fills in the span; 0 where the input has none, as in TFX.
MANIFEST_PATTERN = f"manifest-span-{SPAN_SPEC}.jsonl"
_GLOB = re.compile(r"[*?[]")
# A file so small is known by its content too: its time may be as coarse as a second or two.
_HASHED_BYTES = 1 << 16
# So many files that are named one by one keep their names as sources; more of one directory share
# its name, as a shell's notes/*.txt does.
_MOST_NAMED = 8
_LEFT_OUT_KINDS = 8


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
        source: Where its documents came from, if they do not say: the first directory below what
            the user named, else that directory, else the file itself.
        digest: Of the content of a small local file; empty for others.
    """

    path: str
    name: str
    size_bytes: int
    modified: float
    span: int | None = None
    source: str = "input"
    digest: str = ""


def list_inputs(
    inputs: Sequence[str],
    option: str = "--input",
    span: int | None = None,
    left_out: Counter[str] | None = None,
) -> list[InputFile]:
    """Resolve files, directories (walked, known suffixes only), globs and spans.

    A pattern with {SPAN} means the one whose number is `span`, or the newest (greatest) that is
    there for every such pattern; files are named as if the user had written the number.

    Args:
        inputs: What the user named.
        option: Where the user named it, for messages.
        span: Which span to read; None for the newest.
        left_out: Gets the files of directories that are not read, by kind.

    Raises:
        TokenmillError: A path matches nothing or is no file, or nothing at all is there to read.
    """
    found: dict[str, InputFile] = {}
    left_out = Counter() if left_out is None else left_out
    patterns = [_absolute(pattern) for pattern in inputs]
    tokens = {
        pattern: span_tokens(pattern, [m.path for m in _glob_spans(pattern)], option)
        for pattern in patterns
        if SPAN_SPEC in pattern
    }
    span = choose_span(tokens, span, option)
    for given, pattern in zip(inputs, patterns, strict=True):
        if pattern in tokens and span is not None:
            source = os.path.basename(os.path.dirname(pattern.split(SPAN_SPEC)[0]))
            filled = [pattern.replace(SPAN_SPEC, token) for token in tokens[pattern][span]]
            matches = [
                # Not the number: the next span's documents are from the same source.
                replace(m, span=span, source=m.source if "/" in m.name else source or "input")
                for name in filled
                for m in _match(name, left_out)
            ]
        else:
            matches = _match(pattern, left_out)
        if not matches and _is_special(pattern):
            raise TokenmillError(
                f"{option} {given}: a pipe, socket or device, no file: it cannot be read twice.",
                "Write what comes out of it to a file, and give that.",
            )
        if not matches:
            raise TokenmillError(
                f"{option} {given}: no such file, and no directory with text files in it.",
                f"Files read from a directory: {', '.join(FORMAT_BY_SUFFIX)}, "
                f"each also with {', '.join(COMPRESSION_SUFFIXES)}. {describe_left_out(left_out)}",
            )
        found.update((match.path, match) for match in matches)
    files = _with_distinct_names(_with_common_sources(list(found.values())))
    return sorted(files, key=lambda file: (file.name, file.path))


def describe_left_out(left_out: Counter[str]) -> str:
    """Say in a sentence what `list_inputs` did not read; empty if that is nothing."""
    if not +left_out:
        return ""
    kinds = sorted((+left_out).items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{kind} ({count:,})" for kind, count in kinds[:_LEFT_OUT_KINDS]]
    if rest := sum(count for _, count in kinds[_LEFT_OUT_KINDS:]):
        shown.append(f"others ({rest:,})")
    return f"Left out of the input: {', '.join(shown)}; what a glob names is read."


def _with_common_sources(files: list[InputFile]) -> list[InputFile]:
    """Give many files of one directory that were named one by one its name as their source."""
    named = Counter(os.path.dirname(file.path) for file in files if _is_named(file))
    return [
        replace(file, source=_last_name(os.path.dirname(file.path)))
        if _is_named(file) and named[os.path.dirname(file.path)] > _MOST_NAMED
        else file
        for file in files
    ]


def _is_named(file: InputFile) -> bool:
    return file.source == _first_name(file.path) and "/" not in file.name


def _first_name(path: str) -> str:
    return os.path.basename(path).split(".")[0] or "input"


def _last_name(directory: str) -> str:
    return os.path.basename(directory.rstrip("/")) or "input"


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


def _match(pattern: str, left_out: Counter[str]) -> list[InputFile]:
    """List the files that a path, a directory or a glob means, without pipes and the like."""
    if _is_file(pattern):
        root, source = os.path.dirname(pattern), _first_name(pattern)
        found = _glob(_literal(pattern)) if "://" in pattern else [FileMetadata(pattern, 0)]
    elif _GLOB.search(pattern) and not os.path.isdir(pattern):
        root = os.path.dirname(_GLOB.split(pattern)[0])
        source, found = _last_name(root), _glob(pattern)
        if not is_hidden(_below(root, pattern)):  # as a shell takes globs
            seen = [m for m in found if not is_hidden(_below(root, m.path))]
            left_out["hidden"] += len(found) - len(seen)
            found = seen
    else:
        root = pattern.rstrip("/")
        source, found = _last_name(root), []
        for metadata in _walk(root, left_out):
            if reason := why_left_out(_below(root, metadata.path)):
                left_out[reason] += 1
            else:
                found.append(metadata)
    files = []
    for m in found:
        name = _below(root, m.path)
        head, slash, _ = name.partition("/")
        file = InputFile(m.path, name, m.size_in_bytes, m.last_updated_in_seconds,
                         source=head if slash else source)  # fmt: skip
        if "://" in m.path:
            files.append(file)
        elif local := _local(file, left_out):
            files.append(local)
    return files


def _is_file(path: str) -> bool:
    if "://" in path and path.endswith("/"):  # a marker of a directory may be there: `_glob`
        return False
    return FileSystems.exists(path) and not os.path.isdir(path)


def _below(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _walk(root: str, left_out: Counter[str]) -> Iterator[FileMetadata]:
    """Yield what lies below a directory; links to directories are not followed."""
    if "://" in root:
        yield from _glob(f"{_literal(root)}/**")
        return

    def failed(error: OSError) -> None:
        left_out["directories that cannot be read"] += 1

    for directory, names, files in os.walk(root, onerror=failed):
        left_out["links to directories"] += sum(
            os.path.islink(os.path.join(directory, name)) for name in names
        )
        yield from (FileMetadata(os.path.join(directory, file), 0) for file in files)


def _local(file: InputFile, left_out: Counter[str]) -> InputFile | None:
    """Complete a local file; None, counted, if it is none that can be read twice."""
    try:
        found = os.stat(file.path)
    except OSError:
        left_out["broken links"] += 1
        return None
    if not stat.S_ISREG(found.st_mode):
        left_out["pipes, sockets and devices"] += 1
        return None
    digest = ""
    if found.st_size <= _HASHED_BYTES:
        with contextlib.suppress(OSError), open(file.path, "rb") as content:  # ingest says it
            digest = hashlib.sha256(content.read()).hexdigest()[:16]
    return replace(file, size_bytes=found.st_size, modified=found.st_mtime, digest=digest)


def _is_special(path: str) -> bool:
    return "://" not in path and os.path.exists(path) and not os.path.isdir(path)


def _literal(path: str) -> str:
    """Return a pattern that matches just this path: Beam takes every path for a pattern."""
    return _GLOB.sub(r"[\g<0>]", path)


def _glob(pattern: str) -> list[FileMetadata]:
    """Match files, not the objects without content that mark directories of a bucket."""
    found = FileSystems.match([pattern])[0].metadata_list
    return [metadata for metadata in found if not metadata.path.endswith("/")]


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
