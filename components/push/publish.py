"""Publication of a version in the serving directory: at once, or with its graph last."""

import os

from tfx.dsl.io import fileio

_GRAPH = "saved_model.pb"


def publish(source: str, target: str) -> None:
    """Move a SavedModel to where servers look for versions.

    A rename within a file system is atomic. An object store has none: a directory is renamed file
    by file, in the order of names, so that `saved_model.pb` would be there before the variables.
    TensorFlow Serving takes a directory with a number for a version as soon as it sees it; without
    `saved_model.pb` it fails to load and tries again later, without the variables it would serve
    an uninitialized model (tensorflow/tensorflow#20635). So `saved_model.pb` comes last.

    Args:
        source: The directory to move; in the same file system.
        target: The version's directory; must not exist.
    """
    if "://" not in target:
        fileio.rename(source, target)
        return
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
