"""Entries of the lists of curation (hosts, licenses, words): from the configuration or from files.

A value is a list of entries, of which "@FILE" stands for a file with one entry a line; blank lines,
and those that begin with #, are none. What a run uses is written beside its inputs, in a file named
by its content, so that TFX's cache sees a change and no step needs the user's file.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenmill.errors import TokenmillError
from tokenmill.files import AtomicFile, open_file
from tokenmill.text.normalize import normalize

FILE_SIGN = "@"
MAX_WORDS = 20
"""Of a phrase."""

_MAX_ENTRY_CHARACTERS = 2_000
_BLOCK_ENTRIES = 1 << 16
_URL = re.compile(
    r"(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/?#@\s]*@)?(\[[0-9a-f:.]+\]|[^/?#:@\s\[\]]+)(?::[0-9]+)?"
    r"([/?][^#]*)?(?:#.*)?",
    re.IGNORECASE | re.DOTALL,
)

_HOST = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]")
_PLAIN_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")


class ListFiles(NamedTuple):
    """The file of each list that is in use, by its key in [curate]; empty for none."""

    urls: str = ""
    deny_urls: str = ""
    licenses: str = ""
    deny_licenses: str = ""
    deny_words: str = ""


NO_LISTS = ListFiles()


def split_url(url: str) -> tuple[str, str] | None:
    """Return the host of a URL in lower case (IDNA) and what follows it, without the fragment.

    Scheme, user and port are left out, and a path that is a slash; None for what has no host.
    """
    found = _URL.fullmatch(url)
    if found is None:
        return None
    host, path = found[1].lower().strip("."), found[2] or ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return None
    if path.startswith("?"):
        path = f"/{path}"
    return (host, "" if path == "/" else path) if host else None


def _url_entry(text: str) -> str:
    if _PLAIN_HOST.fullmatch(text):  # of a block list millions
        return text
    parts = None if re.search(r"\s", text) else split_url(text.removeprefix("*."))
    if parts is None or not _HOST.fullmatch(parts[0]):  # ||example.org^, of a blocker's rules
        raise ValueError("a host, example.org, or the beginning of a URL, example.org/blog/")
    return "".join(parts)


def _license_entry(text: str) -> str:
    return text


def _word_entry(text: str) -> str:
    word = " ".join(normalize(text).lower().split())
    if len(word.split()) > MAX_WORDS:
        raise ValueError(f"a word, or a phrase of at most {MAX_WORDS} words")
    return word


_PARSERS: dict[str, Callable[[str], str]] = {
    "urls": _url_entry,
    "deny_urls": _url_entry,
    "licenses": _license_entry,
    "deny_licenses": _license_entry,
    "deny_words": _word_entry,
}


def parse_entry(key: str, text: str) -> str:
    """Return an entry of a list as it is looked for.

    Args:
        key: One of `ListFiles`.
        text: As the user wrote it.

    Raises:
        ValueError: It is none; the message says what was expected.
    """
    text = text.strip()
    if not text or len(text) > _MAX_ENTRY_CHARACTERS:
        raise ValueError(f"an entry of 1 to {_MAX_ENTRY_CHARACTERS:,} characters")
    entry = _PARSERS[key](text)
    if not entry:
        raise ValueError("an entry with visible characters")
    return entry


def parsed_blocks(key: str, values: Sequence[str]) -> Iterator[list[str]]:
    """Yield the entries of a list, parsed, some thousand at a time.

    Args:
        key: One of `ListFiles`, for its kind of entries.
        values: Entries, and @FILE for those of a file (local, or a URI).

    Raises:
        TokenmillError: A file is missing, has no entry, or a line that is none.
    """
    entries = [parse_entry(key, value) for value in values if not value.startswith(FILE_SIGN)]
    if entries:
        yield entries
    for value in values:
        if value.startswith(FILE_SIGN):
            yield from _blocks_of_file(key, value.removeprefix(FILE_SIGN))


def _blocks_of_file(key: str, path: str) -> Iterator[list[str]]:
    name = f"curate.{key}: {path}"
    block: list[str] = []
    count = 0
    try:
        with open_file(os.path.expanduser(path)) as file:
            # A bound, since a file of another kind may have no line feed at all.
            lines = iter(lambda: file.readline(4 * _MAX_ENTRY_CHARACTERS + 2), b"")
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    if not text or text.startswith("#"):
                        continue
                    block.append(parse_entry(key, text))
                except ValueError as error:
                    shown = repr(line[:60].decode("utf-8", "replace").strip())
                    expected = "UTF-8" if isinstance(error, UnicodeDecodeError) else error
                    raise TokenmillError(
                        f"{name}:{number}: {shown}: expected {expected}.",
                        "One entry stands on each line; lines that begin with # are left out.",
                    ) from None
                count += 1
                if len(block) == _BLOCK_ENTRIES:
                    yield block
                    block = []
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise TokenmillError(
            f"{name}: cannot be read: {reason}.", "Expected a file with one entry a line."
        ) from None
    if not count:
        raise TokenmillError(
            f"{name}: there is no entry in it.",
            "Expected one a line; without the key, there is no list.",
        )
    yield block


def list_paths(values: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (key, path) of each @FILE of the lists, by key of `ListFiles`."""
    return [
        (key, value.removeprefix(FILE_SIGN))
        for key, entries in values.items()
        for value in entries
        if value.startswith(FILE_SIGN)
    ]


def pin_lists(values: Mapping[str, Sequence[str]], directory: str) -> ListFiles:
    """Write each list that is in use, parsed, into a file named by its content; return their paths.

    Args:
        values: By key of `ListFiles`; an empty one is not in use.
        directory: Where they go; all workers must see it.

    Raises:
        TokenmillError: As for `parsed_blocks`.
    """
    pinned = {}
    for key, value in values.items():
        if not value:
            continue
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as written:
            for block in parsed_blocks(key, value):
                data = "".join(f"{entry}\n" for entry in block).encode()
                digest.update(data)
                written.write(data)
            written.seek(0)
            path = os.path.join(directory, "lists", f"{key}-{digest.hexdigest()[:16]}.txt")
            with AtomicFile(path) as target:
                shutil.copyfileobj(written, target)
        pinned[key] = path
    return ListFiles(**pinned)


def read_pinned(path: str) -> Iterator[list[str]]:
    """Yield the entries of a file that `pin_lists` wrote, some thousand at a time."""
    with open_file(path) as file:
        while block := file.readlines(1 << 20):
            yield [line.decode()[:-1] for line in block]
