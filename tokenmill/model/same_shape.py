"""The comparison of a model's shape with that of the weights that it shall have."""

from collections.abc import Mapping
from typing import Any

from tokenmill.errors import TokenmillError


def check_same_shape(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Check that two shapes agree in the keys that both have.

    Args:
        name: What the weights are called, for the message.
        ours: The model's, such as of `ModelShape.backbone`.
        theirs: The weights'.

    Raises:
        TokenmillError: It names each key, both values, and the options that take theirs.
    """
    odd = [key for key in ours if key in theirs and ours[key] != theirs[key]]
    if odd:
        keys = {key: f"model.{key}" for key in odd} | {"vocab_size": "tokenizer.vocab_size"}
        there = "; ".join(f"{keys[k]} = {_toml(ours[k])}, there {_toml(theirs[k])}" for k in odd)
        options = " ".join(f"--set {keys[key]}={_toml(theirs[key])}" for key in odd)
        raise TokenmillError(
            f"{name} has another shape: {there}.", f"Take it from there: {options}"
        )


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
