"""Publication of a version in the serving directory: at once, or with its graph last.

Several pushes may go to one directory at the same time: each copies into a directory of its own,
and each publishes under a number that no other has.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator

from tfx.dsl.io import fileio

from tokenmill.errors import TokenmillError

_GRAPH = "saved_model.pb"
# Not a number, so that TensorFlow Serving does not take it for a version.
_TEMPORARY_NAME = ".pushing"
# On an object store nobody can see whether a push still lives.
_KEPT_SECONDS = 24 * 3600
_GREATEST_VERSION = 2**63 - 1


@contextlib.contextmanager
def temporary_directory(base: str) -> Iterator[str]:
    """Yield a directory below `base` that is this push's own, and remove it in the end.

    What killed pushes left is removed, too; what other pushes are writing is not: on a local file
    system each holds a lock on its directory, which ends with its process.
    """
    parent = os.path.join(base, _TEMPORARY_NAME)
    with contextlib.ExitStack() as stack:
        if "://" in base:
            _remove_old(parent)
            path = os.path.join(parent, _unique_name())
            fileio.makedirs(path)
        else:
            _remove_unlocked(parent)
            path = _make_locked(parent, stack)
        try:
            yield path
        finally:
            fileio.rmtree(path)
            if "://" not in base:
                with contextlib.suppress(OSError):  # another push is in it
                    os.rmdir(parent)


def _unique_name() -> str:
    return f"{int(time.time())}-{secrets.token_hex(8)}"


def _remove_old(parent: str) -> None:
    for name in fileio.listdir(parent) if fileio.exists(parent) else []:
        path = os.path.join(parent, name.rstrip("/"))
        written = name.partition("-")[0]
        if not written.isdigit() or int(written) < time.time() - _KEPT_SECONDS:
            (fileio.rmtree if fileio.isdir(path) else fileio.remove)(path)


def _remove_unlocked(parent: str) -> None:
    for name in os.listdir(parent) if os.path.isdir(parent) else []:
        path = os.path.join(parent, name)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            _lock(path, stack, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fileio.rmtree(path)


def _make_locked(parent: str, stack: contextlib.ExitStack) -> str:
    """Make a directory and lock it; again, if another push took it for a killed one's."""
    while True:
        path = os.path.join(parent, _unique_name())
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(path)
            _lock(path, stack, fcntl.LOCK_EX)
            if os.path.isdir(path):
                return path


def _lock(directory: str, stack: contextlib.ExitStack, how: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, how)


def publish_as_newest(
    source: str, base: str, wanted: int, name_version: Callable[[int], None]
) -> int:
    """Move a SavedModel to where servers look for versions; return its number.

    Args:
        source: The directory to move; in the same file system.
        base: The serving directory.
        wanted: The number to take if it is free and above the newest version's.
        name_version: Writes a number into `source`, before it is tried.

    Raises:
        TokenmillError: There is no number above the newest version.
    """
    version = wanted
    while True:
        version = _above_newest(base, version)
        name_version(version)
        if publish(source, os.path.join(base, str(version))):
            return version
        version += 1  # another push was faster


def _above_newest(base: str, wanted: int) -> int:
    """Return `wanted`, or one above the newest version: servers choose no older one."""
    names = [name.rstrip("/") for name in fileio.listdir(base)]
    numbers = [int(name) for name in names if name.isascii() and name.isdigit()]
    version = max([wanted, *(n + 1 for n in numbers if n <= _GREATEST_VERSION)])
    if version > _GREATEST_VERSION:
        raise TokenmillError(
            f"there is no number above the newest version in {base}.",
            "Move that version away, or set push.directory to another directory.",
        )
    return version


def publish(source: str, target: str) -> bool:
    """Move a SavedModel to where servers look for versions; return whether the target was free.

    A rename within a file system is atomic, and fails if another push was faster. An object store
    has none: a directory is renamed file by file, in the order of names, so that `saved_model.pb`
    would be there before the variables. TensorFlow Serving takes a directory with a number for a
    version as soon as it sees it; without `saved_model.pb` it fails to load and tries again later,
    without the variables it would serve an uninitialized model (tensorflow/tensorflow#20635). So
    `saved_model.pb` comes last.

    Args:
        source: The directory to move; in the same file system.
        target: The version's directory.
    """
    if "://" in target:
        return _copy(source, target)
    try:
        os.rename(source, target)
    except OSError:
        if not os.path.lexists(target):
            raise
        return False
    return True


def _copy(source: str, target: str) -> bool:
    base, version = os.path.split(target)
    claims = os.path.join(base, _TEMPORARY_NAME)
    claim = os.path.join(claims, f"{_unique_name()}.{version}")
    # Each push writes its claim before it looks for those of others, so that of two at least one
    # sees the other; who sees another draws back.
    fileio.makedirs(claims)
    with fileio.open(claim, "w") as out:
        out.write(version)
    try:
        others = [name for name in fileio.listdir(claims) if name.endswith(f".{version}")]
        if len(others) > 1 or fileio.exists(target):
            time.sleep(secrets.randbelow(1000) / 1000)  # so that both do not draw back for ever
            return False
        files = [
            os.path.join(directory, name)
            for directory, _, names in fileio.walk(source)
            for name in names
        ]
        for path in sorted(files, key=lambda p: (os.path.basename(p) == _GRAPH, p)):
            copy = os.path.join(target, os.path.relpath(path, source))
            fileio.makedirs(os.path.dirname(copy))
            fileio.copy(path, copy)
        fileio.rmtree(source)
        return True
    finally:
        fileio.remove(claim)
