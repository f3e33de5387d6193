"""What every section of the configuration is: known keys, finite numbers, unchanged once read."""

import json
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

_Section = TypeVar("_Section", bound="Section")


class Section(BaseModel):
    """A section of the configuration, and the execution property of the step that owns it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    def to_json(self, include: set[str] | None = None, exclude: set[str] | None = None) -> str:
        """Return the same text for the same values.

        Args:
            include: The only keys that are part of it; None for all.
            exclude: Keys that are no part of it, such as what may change without a new execution.
        """
        values = self.model_dump(mode="json", include=include, exclude=exclude)
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls: type[_Section], text: str) -> _Section:
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)
