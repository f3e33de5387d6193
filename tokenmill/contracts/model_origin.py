"""origin.json in a pushed version's assets.extra: the run that pushed it, wherever it is moved."""

from __future__ import annotations

import os

from tokenmill.contracts.base import Document, key, read_document, write_document

ORIGIN_PATH = os.path.join("assets.extra", "origin.json")
RUN_ID_VARIABLE = "TOKENMILL_RUN_ID"
"""Of the environment: the run's id on an engine, which TFX does not tell an executor there."""


class ModelOrigin(Document):
    """The run that pushed a version, and as which."""

    run_id: str = key("TFX's id of the run in ML Metadata, or its name on an engine.")
    version: str = key("The version's number when it was pushed.")


def read_origin(version: str) -> ModelOrigin | None:
    """Read the origin of a pushed version's directory; None if there is none."""
    try:
        return read_document(os.path.join(version, ORIGIN_PATH), ModelOrigin)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_origin(version: str, origin: ModelOrigin) -> None:
    """Write the origin into a version's directory."""
    write_document(os.path.join(version, ORIGIN_PATH), origin)
