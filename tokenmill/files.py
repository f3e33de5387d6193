"""Files on local disk and on object stores: opened as they are, written whole or not at all.

A path with "://" goes through Beam's filesystems. Only such a path imports Beam, so that a command
that reads a small local file starts at once.
"""

import contextlib
import errno
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from typing import Any, BinaryIO, cast

from tokenmill.errors import TokenmillError

_TEMPORARY_SUFFIX = ".tmp"
_BUFFER_BYTES = 2**18  # of an object store: a call of its client costs more than one of the system


@contextlib.contextmanager
def _client_errors(path: str) -> Iterator[None]:
    """Raise as an OSError what an object store's client raises: an exception of its own kind."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if getattr(error, "code", None) == 404:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        raise OSError(f"{path}: {type(error).__name__}: {error}") from error


def open_file(path: str) -> BinaryIO:
    """Open a file for reading as it is stored, whatever its name ends in.

    Raises:
        OSError: It is not there (FileNotFoundError), or cannot be read.
    """
    if "://" not in path:
        return open(path, "rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with _client_errors(path):
        file = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return cast(BinaryIO, io.BufferedReader(_ObjectReader(file, path), _BUFFER_BYTES))


class _ObjectReader(io.RawIOBase):
    """Reads an object of a store; what its client raises are OSErrors."""

    def __init__(self, file: BinaryIO, path: str):
        self._file, self._path = file, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _client_errors(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        with _client_errors(self._path):
            return self._file.read()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _client_errors(self._path):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class AtomicFile:
    """A file that gets its name when all of it is written.

    Until `commit` the bytes lie beside it under a unique name that begins with a dot and ends in
    .tmp. As a context manager it is the open file: it commits after a block without an error, and
    discards after one with an error.

    Args:
        path: The file; its directory is made where it is missing, and a file that is there stays
            until `commit` replaces it.
    """

    def __init__(self, path: str):
        directory, name = os.path.split(path)
        name = f".{name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
        self._path, self._temporary = path, os.path.join(directory, name)
        self.file = _create(self._temporary)

    def commit(self) -> None:
        """Close the file and give it its name."""
        if "://" not in self._path:
            self.file.close()
            os.replace(self._temporary, self._path)
            return
        from apache_beam.io.filesystems import FileSystems

        with _client_errors(self._path):
            self.file.close()
            FileSystems.rename([self._temporary], [self._path])

    def discard(self) -> None:
        """Close and remove what was written, although a full disk refuses the rest."""
        try:
            self.file.close()
        finally:
            remove_files([self._temporary])

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(Exception):  # the block's own error is told
                self.discard()
            return
        try:
            self.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                self.discard()
            raise


def write_bytes(path: str, data: bytes) -> None:
    """Write a file atomically."""
    with AtomicFile(path) as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str, value: Any) -> None:
    """Write `value` as sorted, indented JSON, atomically.

    Raises:
        ValueError: A number is not finite: JSON has none for it.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str) -> Any:
    """Read a JSON file."""
    with open_file(path) as source:
        return json.loads(source.read().decode("utf-8"))


def make_empty_directory(directory: str) -> None:
    """Make a local directory for files to be written to.

    Raises:
        TokenmillError: It holds something.
    """
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise TokenmillError(f"{directory} is not empty.", "Name a new directory.")


def list_files(directory: str, pattern: str = "*") -> list[str]:
    """List the files of a directory whose names match, sorted; without those not yet committed."""
    if "://" not in directory:
        names = os.listdir(directory) if os.path.isdir(directory) else []
        paths = [os.path.join(directory, name) for name in names]
    else:
        from apache_beam.io.filesystems import FileSystems

        found = FileSystems.match([os.path.join(directory, pattern)])[0].metadata_list
        # What ends in a slash is no file: TensorFlow and Google's console mark a directory by an
        # object without content.
        paths = [file.path for file in found if not file.path.endswith("/")]
    return sorted(
        path
        for path in paths
        if fnmatch(os.path.basename(path), pattern) and not _is_temporary(path)
    )


def remove_files(paths: Iterable[str]) -> None:
    """Remove files; one that is not there is no error."""
    for path in paths:
        if "://" not in path:
            if os.path.exists(path):
                os.remove(path)
            continue
        from apache_beam.io.filesystems import FileSystems

        if FileSystems.exists(path):
            FileSystems.delete([path])


def remove_temporary_files(directory: str) -> None:
    """Remove what killed writers left in a directory, where readers take every file for data."""
    from apache_beam.io.filesystems import FileSystems

    pattern = os.path.join(directory, f".*{_TEMPORARY_SUFFIX}")
    remove_files(file.path for file in FileSystems.match([pattern])[0].metadata_list)


def copy_into(source: str, directory: str) -> None:
    """Copy a file or a tree into a directory, under its own name; nothing, if it is not there."""
    import tensorflow as tf

    target = os.path.join(directory, os.path.basename(source))
    if tf.io.gfile.isdir(source):
        for name in tf.io.gfile.listdir(source):
            copy_into(os.path.join(source, name.rstrip("/")), target)
    elif tf.io.gfile.exists(source):
        tf.io.gfile.makedirs(directory)
        tf.io.gfile.copy(source, target, overwrite=True)


def _is_temporary(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith(".") and name.endswith(_TEMPORARY_SUFFIX)


def _create(path: str) -> BinaryIO:
    if "://" not in path:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return open(path, "wb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    raw = CompressionTypes.UNCOMPRESSED
    with _client_errors(path):
        return cast(BinaryIO, FileSystems.create(path, compression_type=raw))


def absolute_path(path: str) -> str:
    """Return the path from the root; a URI is one already."""
    return path if "://" in path else os.path.abspath(path)


def check_is_no_pattern(path: str, option: str) -> None:
    """Check that artifacts can lie below a directory.

    TFX, TFDV, TFMA and Transform make patterns of their inputs' paths, and Beam has no way to quote
    in one: a run would fail at its second step.

    Raises:
        TokenmillError: Its path, from the root, holds *, ?, [, a backslash or {SPAN} and its kin.
    """
    whole = absolute_path(path)
    if found := re.findall(r"[*?\[\\]|\{(?:SPAN|VERSION|YYYY|MM|DD)\b", whole):
        raise TokenmillError(
            f"{option} = {whole}: {' and '.join(dict.fromkeys(found))} in a path is a pattern to "
            "TFX.",
            f"Name a directory without it: --set {option}=...",
        )
