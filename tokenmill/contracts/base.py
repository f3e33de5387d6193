"""Base of the models of all contracts, with their one reader and writer."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokenmill.errors import TokenmillError
from tokenmill.files import read_json, write_json

Number = int | float


class Part(BaseModel):
    """A part of a document: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def to_json(self) -> dict[str, Any]:
        """Return the document's keys and values; a key that was never given is absent."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def key(meaning: str, **options: Any) -> Any:
    """Define a required key by what it means."""
    return Field(description=meaning, **options)


Document = TypeVar("Document", bound=Part)


def read_document(path: str, model: type[Document]) -> Document:
    """Read a JSON file as a model.

    Raises:
        TokenmillError: The file lacks a key, or has one that the model does not know.
    """
    return check_document(path, read_json(path), model)


def check_document(path: str, values: Any, model: type[Document]) -> Document:
    """Return what was read from a file as a model; errors are those of `read_document`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TokenmillError(
            f"{path}: {where}: {first['msg']}; expected the keys that this version writes.",
            "Run the step that wrote it anew.",
        ) from error


def write_document(path: str, document: Part) -> None:
    """Write a model as sorted, indented JSON."""
    write_json(path, document.to_json())
