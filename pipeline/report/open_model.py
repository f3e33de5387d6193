"""What a checkpoint of an open model is, as `tokenmill import` prints it."""

import json
import time
from typing import Any

import tomli_w

from pipeline.base_model import checkpoint_values
from pipeline.report.tables import echo
from tokenmill.checkpoints.checkpoint import Checkpoint, read_checkpoint
from tokenmill.contracts.served_model import Pooling
from tokenmill.model.config import ModelConfig
from tokenmill.number_format import active_params

_HEADS = {
    "lm": "next token",
    "mlm": "masked language model",
    "classifier": "classifier",
    None: "none; one is trained",
}


def print_open_model(directory: str, sequence_length: int | None, as_json: bool) -> None:
    """Read a checkpoint, its weights too, and print what it is.

    Args:
        directory: The checkpoint.
        sequence_length: Tokens of the rows; None for as many as it was made for.
        as_json: Whether to print JSON.

    Raises:
        TokenmillError: It cannot be read, or not be expressed.
    """
    checkpoint = read_checkpoint(directory, sequence_length)
    start = time.perf_counter()
    checkpoint.weights.check_values()
    seconds = time.perf_counter() - start
    if as_json:
        echo(json.dumps(_document(checkpoint), indent=2, ensure_ascii=False))
        return
    kinds = " and ".join(checkpoint.dtypes)
    labels = f" of {', '.join(checkpoint.label_names)}" if checkpoint.label_names else ""
    active = checkpoint.parameters - checkpoint.shape.params_idle
    sparse = active_params(checkpoint.parameters, active, "{:,}".format)
    lines = {
        "family": f"{checkpoint.family} ({checkpoint.architecture})",
        "head": _HEADS[checkpoint.head] + labels,
        "parameters": f"{checkpoint.parameters:,}{sparse}, stored as {kinds}",
        "rows": f"at most {checkpoint.max_positions:,} tokens",
    }
    if checkpoint.pooling is not None:
        lines["text vector"] = describe_pooling(checkpoint.pooling)
    lines["weights"] = f"all finite (read in {seconds:.1f} s)"
    for name, value in lines.items():
        echo(f"{name:<12} {value}")
    echo()
    echo(tomli_w.dumps({"model": _changed_keys(checkpoint)}).rstrip())


def describe_pooling(pooling: Pooling) -> str:
    """Return in words how one vector is made of a text."""
    which = {"mean": "mean of all tokens", "cls": "first token"}[pooling.mode]
    normalized = ", then divided by its length" if pooling.normalized else ""
    return f"{which}{normalized}; of a text at most {pooling.max_tokens:,} tokens"


def _changed_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the keys of [model] that are not at their defaults, with the one to start from."""
    defaults = ModelConfig()
    values = {key: v for (section, key), v in checkpoint_values(checkpoint).items()
              if section == "model" and v != getattr(defaults, key)}  # fmt: skip
    return values | {"base_model": checkpoint.directory}


def _document(checkpoint: Checkpoint) -> dict[str, Any]:
    pooling = checkpoint.pooling
    return {
        "directory": checkpoint.directory,
        "family": checkpoint.family,
        "architecture": checkpoint.architecture,
        "head": checkpoint.head,
        "label_names": list(checkpoint.label_names),
        "parameters": checkpoint.parameters,
        "active_parameters": checkpoint.parameters - checkpoint.shape.params_idle,
        "dtypes": list(checkpoint.dtypes),
        "max_positions": checkpoint.max_positions,
        "vocab_size": checkpoint.shape.vocab_size,
        "pooling": pooling and pooling.to_json(),
        "model": _changed_keys(checkpoint),
    }
