"""Files and trees on any filesystem that TensorFlow knows."""

import os

import tensorflow as tf


def copy_into(source: str, directory: str) -> None:
    """Copies a file or a tree into a directory, under its own name; nothing, if it is not there."""
    target = os.path.join(directory, os.path.basename(source))
    if tf.io.gfile.isdir(source):
        for name in tf.io.gfile.listdir(source):
            copy_into(os.path.join(source, name.rstrip("/")), target)
    elif tf.io.gfile.exists(source):
        tf.io.gfile.makedirs(directory)
        tf.io.gfile.copy(source, target, overwrite=True)
