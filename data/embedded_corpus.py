"""The embedded corpus: the docstrings and documentation of packages the install brings anyway.

The demo needs megabytes of real English text with real duplicates, and must run without a network.
The files of each package come from its installed RECORD and are read as text, never imported, so
nothing here loads TensorFlow or any other package.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import email
import errno
import hashlib
import importlib.metadata
import inspect
import json
import logging
import os
import secrets
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data.cache import cache_directory

_log = logging.getLogger(__name__)

BUILDER_VERSION = 1
"""Raise it with every change that alters the documents: it is part of the cache key."""

EMBEDDED_PACKAGES: tuple[str, ...] = (
    # Long, well-edited technical prose: numerical and machine-learning libraries.
    "numpy",
    "scikit-learn",
    "nltk",
    # Two lines of one code base: hundreds of docstrings are equal, or nearly so.
    "keras",
    "tf-keras",
    # What this project stands on.
    "apache-beam",
    "ml-pipelines-sdk",  # the half of TFX's modules that the tfx wheel does not hold
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "tensorflow-text",
    "tensorflow-transform",
    "tfx",
    # Generated clients: API versions, sync and async, share their text (boilerplate).
    "google-cloud-vision",
    "google-cloud-language",
    # Smaller libraries, each in a voice of its own.
    "click",
    "jinja2",
    "pydantic",
    "rich",
)
"""Distributions to read. Left out: tensorflow and scipy (7 and 4 MB: they would drown the rest),
and whatever only the `dev` extra installs."""

_MIN_CHARACTERS = 200
_MAX_FILE_BYTES = 400_000  # larger files are generated or data
_SKIPPED_DIRECTORIES = frozenset(
    {"__pycache__", "_vendor", "_vendored", "data", "include"}
    | {"test", "testdata", "testing", "tests"}
)
_SKIPPED_NAME_PARTS = ("licen", "notice", "copying", "cmakelists", "requirements")
_SKIPPED_MODULE_ENDS = ("_pb2.py", "_pb2_grpc.py", "_test.py")
_DOCUMENTATION_SUFFIXES = frozenset({".md", ".rst", ".txt"})
_STALE_SECONDS = 3600.0  # a build takes seconds: an hour-old temporary directory has no builder

Progress = Callable[[int, int], None]


class EmbeddedCorpusError(Exception):
    """Failure to build the corpus from this environment: what is wrong, and what to do about it."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class EmbeddedCorpus:
    """A built corpus: where it lies and what is in it."""

    path: Path
    documents: int
    text_bytes: int
    packages: tuple[tuple[str, str], ...]
    skipped_files: int


def ensure_embedded_corpus(
    cache_dir: Path | None = None, on_progress: Progress | None = None
) -> EmbeddedCorpus:
    """Return the embedded corpus, building it if this environment's is not in the cache.

    Args:
        cache_dir: Where to keep it; default `$XDG_CACHE_HOME/tokenmill` or `~/.cache/tokenmill`.
        on_progress: Called with (packages done, packages in all) during a build.

    Raises:
        EmbeddedCorpusError: A package of EMBEDDED_PACKAGES is not installed.
    """
    cache_dir = cache_directory() if cache_dir is None else cache_dir
    name = f"embedded-{_cache_key(_find_distributions(EMBEDDED_PACKAGES))[:12]}"
    final = cache_dir / name
    cached = _load(final)
    if cached is not None:
        return cached
    cache_dir.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache_dir)
    temporary = _temporary_beside(final)
    temporary.mkdir()
    try:
        built = build_embedded_corpus(
            temporary / "documents.jsonl", EMBEDDED_PACKAGES, on_progress=on_progress
        )
        _write_summary(temporary, built)
        _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(built, path=final / "documents.jsonl")


def build_embedded_corpus(
    path: Path,
    packages: Sequence[str] = EMBEDDED_PACKAGES,
    on_progress: Progress | None = None,
) -> EmbeddedCorpus:
    """Write the documents of `packages` to `path`, one JSON object a line.

    The order of `packages` does not matter. The file is written in place: `ensure_embedded_corpus`
    adds the cache and atomicity.

    Args:
        path: The .jsonl file to write; its directory must exist.
        packages: Names of installed distributions.
        on_progress: Called with (packages done, packages in all).

    Raises:
        EmbeddedCorpusError: A package is not installed, or has no list of its files.
    """
    distributions = _find_distributions(packages)
    listings = {name: _listed_files(name, found) for name, found in distributions.items()}
    documents = text_bytes = skipped_files = 0
    with path.open("wb") as file:
        for done, (package, relatives) in enumerate(listings.items(), start=1):
            skipped: list[str] = []
            for document in _package_documents(distributions[package], package, relatives, skipped):
                line = json.dumps(document, sort_keys=True, ensure_ascii=False)
                file.write(line.encode() + b"\n")
                documents += 1
                text_bytes += len(document["text"].encode())
            if skipped:
                _log.info("%s: %d files skipped: %s", package, len(skipped), ", ".join(skipped))
            skipped_files += len(skipped)
            if on_progress is not None:
                on_progress(done, len(listings))
    versions = tuple((name, found.version) for name, found in distributions.items())
    return EmbeddedCorpus(path, documents, text_bytes, versions, skipped_files)


def _find_distributions(
    packages: Sequence[str],
) -> dict[str, importlib.metadata.Distribution]:
    """Return the installed distribution of each package, in order of name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    missing: list[str] = []
    for name in sorted(set(packages)):
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise EmbeddedCorpusError(
            f"the embedded corpus needs packages that are not installed in this Python: "
            f"{', '.join(missing)}. Run `make setup`, and start tokenmill from .venv."
        )
    return found


def _listed_files(package: str, found: importlib.metadata.Distribution) -> list[str]:
    """Return the files to read, sorted, relative to site-packages."""
    record = found.read_text("RECORD")  # `found.files` leaves out what is missing, from 3.12 on
    if record is None:
        raise EmbeddedCorpusError(
            f"the installed package {package} has no RECORD of its files, so the embedded corpus "
            f"cannot read it. Run `make setup` to install it from its wheel."
        )
    names = {row[0] for row in csv.reader(record.splitlines()) if row}
    return sorted(name for name in names if _is_wanted(PurePosixPath(name)))


def _is_wanted(file: PurePosixPath) -> bool:
    """Say whether a file is a module or documentation, and no test, license or generated code."""
    name = file.name.lower()
    if file.is_absolute() or ".." in file.parts:  # scripts, outside site-packages
        return False
    if not _SKIPPED_DIRECTORIES.isdisjoint(file.parts[:-1]):
        return False
    if ".dist-info" in str(file):
        return name == "metadata"
    if file.suffix == ".py":
        generated_or_test = name.endswith(_SKIPPED_MODULE_ENDS) or name.startswith("test_")
        return not generated_or_test
    return file.suffix in _DOCUMENTATION_SUFFIXES and not any(
        part in name for part in _SKIPPED_NAME_PARTS
    )


def _package_documents(
    found: importlib.metadata.Distribution,
    package: str,
    relatives: list[str],
    skipped: list[str],
) -> Iterator[dict[str, str]]:
    """Yield the documents of one package; names of unreadable files go to `skipped`."""
    ids: Counter[str] = Counter()
    for relative in relatives:
        location = Path(str(found.locate_file(relative)))
        try:
            texts = _read_documents(location, PurePosixPath(relative))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            # Python 3.10's parser reports nesting that is too deep as MemoryError.
            skipped.append(relative)
            continue
        for qualified_name, text in texts:
            if len(text) < _MIN_CHARACTERS:
                continue
            document_id = f"{package}/{relative}:{qualified_name}"
            ids[document_id] += 1
            if ids[document_id] > 1:  # overloads, setters, both branches of an `if`
                document_id += f"#{ids[document_id]}"
            yield {"id": document_id, "source": package, "text": text}


def _read_documents(location: Path, relative: PurePosixPath) -> list[tuple[str, str]]:
    """Return (qualified name, text) of each document in a file; empty for a file too large."""
    content = location.read_bytes()
    if len(content) > _MAX_FILE_BYTES:
        return []
    if relative.suffix == ".py":
        with warnings.catch_warnings():
            # Invalid escapes warn; under -W error the file would be lost, and with it determinism.
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
        return list(_docstrings(tree, ""))
    text = content.decode("utf-8-sig").replace("\r\n", "\n")
    if relative.name == "METADATA":
        headers = email.message_from_string(text)
        # Metadata before version 2.1 has the description in a header.
        return [("description", str(headers.get_payload() or headers.get("Description") or ""))]
    return [("document", text)]


def _docstrings(node: ast.AST, qualified_name: str) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of a module, class or function and of all it holds, in source order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            # A literal may hold a lone surrogate, which UTF-8 cannot: keep it as its escape.
            encodable = docstring.encode("utf-8", "backslashreplace").decode()
            yield qualified_name or "module", inspect.cleandoc(encodable)
    inner_prefix = qualified_name and f"{qualified_name}."
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inner_prefix += "<locals>."
    yield from _docstrings_under(node, inner_prefix)


def _docstrings_under(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of the definitions under a node, through if, try, with and loops."""
    for statement in _statements(node):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(statement, prefix + statement.name)
        else:
            yield from _docstrings_under(statement, prefix)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements directly under a node; expressions cannot hold definitions."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        children = getattr(node, field, None)
        if isinstance(children, list):
            yield from children


def _cache_key(distributions: dict[str, importlib.metadata.Distribution]) -> str:
    # The Python version is part of it: parser and inspect.cleandoc differ between versions.
    parts = [
        BUILDER_VERSION,
        list(sys.version_info[:2]),
        [[name, found.version] for name, found in distributions.items()],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _temporary_beside(final: Path) -> Path:
    return final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")


def _write_summary(directory: Path, corpus: EmbeddedCorpus) -> None:
    summary = {
        "documents": corpus.documents,
        "text_bytes": corpus.text_bytes,
        "file_bytes": corpus.path.stat().st_size,
        "packages": [list(pair) for pair in corpus.packages],
        "skipped_files": corpus.skipped_files,
    }
    text = json.dumps(summary, indent=2, sort_keys=True)
    (directory / "corpus.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def _load(directory: Path) -> EmbeddedCorpus | None:
    """Return the corpus in a cache directory, or None if it is absent or damaged."""
    path = directory / "documents.jsonl"
    try:
        summary = json.loads((directory / "corpus.json").read_text(encoding="utf-8"))
        if path.stat().st_size != summary["file_bytes"]:
            return None
        return EmbeddedCorpus(
            path,
            summary["documents"],
            summary["text_bytes"],
            tuple((name, version) for name, version in summary["packages"]),
            summary["skipped_files"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _publish(temporary: Path, final: Path) -> None:
    """Give a finished directory its name; yield to another process that was first."""
    for _ in range(3):
        try:
            os.rename(temporary, final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _load(final) is not None:
            return
        damaged = _temporary_beside(final)
        with contextlib.suppress(FileNotFoundError):  # another process has just moved it
            os.rename(final, damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    raise EmbeddedCorpusError(f"{final} is damaged and cannot be replaced; remove it")


def _remove_stale(cache_dir: Path) -> None:
    """Remove what killed builds left behind."""
    for leftover in cache_dir.glob(".embedded-*.tmp"):
        try:
            is_stale = time.time() - leftover.stat().st_mtime > _STALE_SECONDS
        except OSError:  # its builder has just renamed it
            continue
        if is_stale:
            shutil.rmtree(leftover, ignore_errors=True)
