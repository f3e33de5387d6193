"""How sentence-transformers makes one vector of a text: modules.json and what it names."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from tokenmill.checkpoints.settings import Settings
from tokenmill.errors import TokenmillError
from tokenmill.files import read_json

MODULES_NAME = "modules.json"
_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
# Whether the tokens of a prompt count: there is none.
_WITHOUT_EFFECT = ("include_prompt",)


@dataclass(frozen=True)
class Pooling:
    """How the vectors of a text's tokens become one.

    Attributes:
        width: Features of the vectors.
        mode: ``mean`` of all tokens, [CLS] and [SEP] included; or ``cls``, the first token's.
        normalized: Whether the vector is divided by its length.
    """

    width: int
    mode: Literal["mean", "cls"]
    normalized: bool


def read_modules(directory: str) -> tuple[str, Pooling | None]:
    """Read modules.json of a sentence-transformers directory.

    Returns:
        The directory of the Transformer, and the pooling; the directory itself and None where
        there is no modules.json.

    Raises:
        TokenmillError: A module, or a pooling, is none that is known here.
    """
    path = os.path.join(directory, MODULES_NAME)
    if not os.path.exists(path):
        return directory, None
    modules = _read(path, list)
    kinds, places = [], []
    for number, module in enumerate(modules):
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise TokenmillError(
                f"{path}: module {number} = {module!r}: expected an object with type."
            )
        place = module.get("path", "")
        if not isinstance(place, str) or os.path.isabs(place) or ".." in place.split("/"):
            raise TokenmillError(
                f"{path}: module {number}: path = {place!r}: expected a directory within this one."
            )
        kinds.append(module["type"].rsplit(".", 1)[-1])
        places.append(place)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise TokenmillError(
            f"{path}: the modules are {', '.join(kinds) or 'none'}: expected Transformer, Pooling "
            "and perhaps Normalize, as nothing else can be expressed here.",
            f"To take the Transformer without them, remove {MODULES_NAME}.",
        )
    width, mode = _read_mode(os.path.join(directory, places[1], "config.json"))
    pooling = Pooling(width, mode, normalized=len(kinds) == 3)
    return os.path.join(directory, places[0]).rstrip("/"), pooling


def _read_mode(path: str) -> tuple[int, Any]:
    """Read width and mode of the pooling."""
    values = _read(path, dict)
    settings = Settings(path, values)
    width = settings.size("word_embedding_dimension")
    chosen = [k for k in values if k.startswith("pooling_mode_") and settings.flag(k, False)]
    if chosen == [] and "pooling_mode" in settings:
        mode = settings.choice("pooling_mode", {"mean": "mean", "cls": "cls"}, "mean")
    elif len(chosen) == 1 and chosen[0] in _MODES:
        mode = _MODES[chosen[0]]
    else:
        raise TokenmillError(
            f"{path}: {' and '.join(chosen) or 'no pooling_mode'} is true: expected one of "
            f"{' and '.join(_MODES)}, as nothing else can be expressed here.",
        )
    settings.refuse_others({key: (True, False) for key in _WITHOUT_EFFECT})
    return width, mode


def _read(path: str, kind: type) -> Any:
    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise TokenmillError(
            f"{path}: cannot be read as JSON: {error}.", "Fetch it again."
        ) from None
    if not isinstance(values, kind):
        raise TokenmillError(f"{path}: expected a JSON {'array' if kind is list else 'object'}.")
    return values
