"""Versions that the numbers of a run depend on, and all in which the two stacks differ.

tokenmill runs on two sets of libraries: the modern one (Python 3.12 and 3.13, TFX 1.21, TensorFlow
2.21, protobuf 6; requirements.lock) and one for systems with a glibc under 2.39 (Python 3.10, TFX
1.16, TensorFlow 2.16, protobuf 3.20; requirements-py310.lock). No other module asks which of them
it runs on. When the old one goes, these go with it:

- `proto_json`: protobuf 3.20 knows only the former name of the option;
- the markers in pyproject.toml, requirements-py310*.lock, and the stack `py310` in tools/ and in
  the Makefile.
"""

import functools
import importlib.metadata
import platform
from typing import Any

import google.protobuf
from google.protobuf import json_format

_OLD_PROTOBUF = google.protobuf.__version__.startswith("3.")


@functools.cache
def stack_versions() -> str:
    """Return the versions of the libraries that compute: other ones give other bits."""
    names = ("tfx", "tensorflow", "keras")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def library_versions() -> dict[str, str]:
    """Return the versions of Python, tokenmill and the libraries of a run, by name.

    `stack` and `lock` name the set of them and the file that pins it.
    """
    names = ("tokenmill", "tensorflow", "keras", "tfx", "apache-beam")
    libraries = ("tensorflow-data-validation", "tensorflow-transform", "tensorflow-model-analysis")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in (*names, *libraries)},
        "stack": "py310" if _OLD_PROTOBUF else "modern",
        "lock": "requirements-py310.lock" if _OLD_PROTOBUF else "requirements.lock",
    }


def proto_json(message: Any) -> str:
    """Return a protobuf message as JSON, fields under their own names, defaults included."""
    old, new = "including_default_value_fields", "always_print_fields_with_no_presence"
    option = old if _OLD_PROTOBUF else new
    return json_format.MessageToJson(message, preserving_proto_field_name=True, **{option: True})
