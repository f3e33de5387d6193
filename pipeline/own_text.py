"""The preset of `tokenmill run --input`: shape and epochs by how much text there is.

Only the sizes of the files are looked at, so that it is known before the first step and the same
wherever the text is.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.ingest.manifest import COMPRESSION_SUFFIXES, list_inputs
from tokenmill.machine import vcpus
from tokenmill.number_format import byte_size, decimal

NAME = "own"
ORIGIN = "chosen for the size of the input"
# Text by its compressed size, and by the size of a file of columns.
_COMPRESSION = 3.0
_BYTES_PER_TOKEN = 3.5
# What two cores of 2024 compute in the training step, with 6 FLOPs a parameter and token.
_FLOPS_PER_CORE_SECOND = 6e10


class Size(NamedTuple):
    """The choices for text up to so many bytes."""

    most_bytes: float
    values: Mapping[str, Mapping[str, Any]]


def _size(
    most_bytes: float, vocab_size: int, shape: tuple[int, int, int], batch: int, epochs: float,
    learning_rate: float, eval_fraction: float,
) -> Size:  # fmt: skip
    layers, d_model, length = shape
    return Size(
        most_bytes,
        {
            "corpus": {"eval_fraction": eval_fraction},
            "tokenizer": {"vocab_size": vocab_size},
            "model": {
                "layers": layers, "d_model": d_model, "heads": 4, "d_ff": 4 * d_model,
                "sequence_length": length,
            },
            "train": {
                "global_batch_size": batch, "epochs": epochs, "learning_rate": learning_rate,
            },
        },
    )  # fmt: skip


# More epochs of little text: repeated text is worth almost as much up to four times, and something
# up to some twenty (Muennighoff et al. 2023). A larger share of little text is held out, too.
_SIZES = (
    _size(1e5, 512, (2, 128, 64), 8, 20, 4e-3, 0.1),
    _size(1e6, 2048, (2, 128, 128), 8, 10, 4e-3, 0.1),
    _size(4e6, 2048, (4, 192, 256), 16, 4, 3e-3, 0.05),
    _size(12e6, 4096, (4, 256, 256), 16, 1, 2e-3, 0.05),
)
# Beyond, a part of an epoch reads as much as a whole one of this much text.
_LARGEST = _SIZES[-1].most_bytes


def own_text_values(
    inputs: Sequence[str], span: int | None = None
) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the sections that depend on the text, and a sentence that says what was chosen.

    Raises:
        TokenmillError: A path matches nothing.
    """
    size = sum(
        file.size_bytes * (_COMPRESSION if _is_compressed(file.path) else 1)
        for file in list_inputs(inputs, span=span)
    )
    chosen = next((s for s in _SIZES if size <= s.most_bytes), _SIZES[-1]).values
    values = {name: dict(section) for name, section in chosen.items()}
    part = ""
    if size > _LARGEST:
        epochs = float(f"{_LARGEST / size:.2g}")
        values["train"]["epochs"] = epochs
        part = f"; it reads {decimal(epochs, 2)} of the text, all of it with --set train.epochs=1"
    values["run"] = {"name": run_name(inputs[0])}
    values["curate"] = {"rules": "technical-prose"}
    minutes = max(1, round(_training_seconds(size, values) / 60))
    return values, (
        f"vocabulary, shape and epochs are chosen for about {byte_size(size)} of text: some "
        f"{minutes:,} min of training on this machine{part}; --set, --config or "
        "--preset choose others"
    )


def run_name(path: str) -> str:
    """Make a name of a run from the name of its input."""
    name = os.path.basename(path.rstrip("/")).split(".")[0].lower()
    name = re.sub("[^a-z0-9]+", "-", name).strip("-")[:40].strip("-")
    return name or NAME


def _is_compressed(path: str) -> bool:
    return path.lower().endswith((*COMPRESSION_SUFFIXES, ".parquet"))


def _training_seconds(size: float, values: Mapping[str, Mapping[str, Any]]) -> float:
    model, train = values["model"], values["train"]
    parameters = 12 * model["layers"] * model["d_model"] ** 2
    parameters += values["tokenizer"]["vocab_size"] * model["d_model"]
    tokens = size / _BYTES_PER_TOKEN * train["epochs"]
    return 6 * parameters * tokens / _FLOPS_PER_CORE_SECOND / vcpus()
