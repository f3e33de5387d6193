"""Base of the models of all contracts, with their one reader and writer."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokenmill.errors import TokenmillError
from tokenmill.files import read_json, write_json

Number = int | float


class Part(BaseModel):
    """A part of a document: unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return the document's keys and values; a key that was never given is absent."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Document(Part):
    """A file of its own, or a line of one: docs/ has its schema (tools/contract_docs.py)."""

    def to_text(self) -> str:
        """Return all keys as JSON in ASCII, which escapes what of a path is no UTF-8."""
        return json.dumps(self.model_dump(by_alias=True), indent=2)


def key(meaning: str, **options: Any) -> Any:
    """Define a required key by what it means."""
    return Field(description=meaning, **options)


AnyDocument = TypeVar("AnyDocument", bound=Document)


def read_document(path: str, model: type[AnyDocument]) -> AnyDocument:
    """Read a JSON file as a model.

    Raises:
        TokenmillError: The file lacks a key, has one that the model does not know, or has a value
            that the model refuses, such as NaN.
    """
    return check_document(path, read_values(path), model)


def find_document(path: str, model: type[AnyDocument]) -> AnyDocument | None:
    """Read a document as `read_document` does; None where there is no such file."""
    if "://" not in path:
        return read_document(path, model) if os.path.exists(path) else None
    import tensorflow as tf  # only a bucket needs it, and it takes seconds

    return read_document(path, model) if tf.io.gfile.exists(path) else None


def read_values(path: str) -> Any:
    """Read a JSON file that is to be checked.

    Raises:
        TokenmillError: It is no JSON, such as a file that is broken off.
    """
    try:
        return read_json(path)
    except ValueError as error:
        raise TokenmillError(
            f"{path}: no JSON document: {error}.", "Run the step that wrote it anew."
        ) from error


def check_document(path: str, values: Any, model: type[AnyDocument]) -> AnyDocument:
    """Return what was read from a file as a model; errors are those of `read_document`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise TokenmillError(
            f"{path}: {where}: {first['msg']}; expected the keys that this version writes.",
            "Run the step that wrote it anew.",
        ) from error


def write_document(path: str, document: Document) -> None:
    """Write a model as sorted, indented JSON."""
    write_json(path, document.to_json())
