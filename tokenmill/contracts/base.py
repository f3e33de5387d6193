"""What the models of all contracts are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Number = int | float


class Part(BaseModel):
    """A part of a document: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def key(meaning: str, **options: Any) -> Any:
    """A required key and what it means."""
    return Field(description=meaning, **options)
