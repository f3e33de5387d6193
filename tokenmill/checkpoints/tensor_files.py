"""The *.safetensors of a checkpoint: names, shapes and types at once, values tensor by tensor."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors

from tokenmill.errors import TokenmillError
from tokenmill.files import read_json

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

READABLE_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The types of weights that are read: safetensors' names, and NumPy's."""

# Weights in formats that may hold code, or that are not read here.
_OTHER_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")
_AGAIN = "The file is damaged, or its download was cut off: fetch it again."


class Tensor(NamedTuple):
    """What a file says of one of its tensors.

    Attributes:
        file: The file's path.
        shape: Sizes.
        dtype: safetensors' name of the type, such as BF16.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str


class TensorFiles:
    """All tensors of a directory: those of one file, or of several with an index.

    Opening reads the files' headers alone. The values are mapped into memory and copied when they
    are asked for, so that a tensor at a time is held.

    Args:
        directory: Where the files lie.

    Raises:
        TokenmillError: A file is missing, damaged, or not the one that the index means.
    """

    def __init__(self, directory: str):
        single = os.path.join(directory, WEIGHTS_NAME)
        index = os.path.join(directory, INDEX_NAME)
        self._handles: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        if os.path.exists(single):
            self._open(single)
        elif os.path.exists(index):
            self._open_shards(directory, index)
        else:
            raise _no_weights(directory)

    def _open(self, path: str) -> list[str]:
        try:
            handle = safetensors.safe_open(path, framework="numpy")
        except FileNotFoundError:
            raise TokenmillError(f"{path}: there is no such file.", _AGAIN) from None
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, error) from None
        self._handles[path] = handle
        names = sorted(handle.keys())
        for name in names:
            part = handle.get_slice(name)
            self.tensors[name] = Tensor(path, tuple(part.get_shape()), part.get_dtype())
        return names

    def _open_shards(self, directory: str, index: str) -> None:
        shards = _read_index(index)
        absent = [s for s in shards if not os.path.exists(os.path.join(directory, s))]
        if absent:
            raise TokenmillError(
                f"{directory}: {', '.join(absent)} is missing, which {INDEX_NAME} names.",
                "Fetch all files of the checkpoint.",
            )
        for shard, meant in shards.items():
            path = os.path.join(directory, shard)
            found = set(self._open(path))
            if lacking := sorted(meant - found):
                raise TokenmillError(
                    f"{path}: it has no tensor {lacking[0]} ({len(lacking)} of {len(meant)} that "
                    f"{INDEX_NAME} says are in it are missing).",
                    "The files are of different checkpoints, or mixed up: fetch all of them again.",
                )
            if strange := sorted(found - meant):
                raise TokenmillError(
                    f"{path}: it has the tensor {strange[0]}, which {INDEX_NAME} does not say is "
                    "in it.",
                    "The files are of different checkpoints, or mixed up: fetch all of them again.",
                )

    def read(self, name: str, rows: int | None = None) -> np.ndarray:
        """Return a copy of a tensor's values, in the type that they are stored in.

        Args:
            name: The tensor.
            rows: The first so many rows alone; None for all.
        """
        handle = self._handles[self.tensors[name].file]
        return handle.get_tensor(name) if rows is None else handle.get_slice(name)[:rows]

    def first_difference(self, name: str, other: str, rows: int = 4096) -> int | None:
        """Return the first row in which two tensors of one shape differ; None if none does.

        Args:
            name: A tensor.
            other: Another one.
            rows: How many are held in memory at a time.
        """
        pair = [self._handles[self.tensors[n].file].get_slice(n) for n in (name, other)]
        count = self.tensors[name].shape[0]
        for start in range(0, count, rows):
            ours, theirs = (part[start : min(start + rows, count)] for part in pair)
            equal = (ours == theirs).reshape(len(ours), -1).all(axis=1)
            if not equal.all():
                return start + int(np.argmin(equal))
        return None


def _read_index(index: str) -> dict[str, set[str]]:
    """Return the names of tensors by the file that holds them."""
    try:
        weight_map = read_json(index)["weight_map"]
        pairs = [(str(name), os.fspath(file)) for name, file in weight_map.items()]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise TokenmillError(
            f"{index}: no index of shards ({type(error).__name__}: {error}): expected an object "
            "weight_map of tensors and their files.",
            "Fetch it again.",
        ) from None
    shards: dict[str, set[str]] = {}
    for name, file in sorted(pairs):
        if os.path.basename(file) != file or not file.endswith(".safetensors"):
            raise TokenmillError(
                f"{index}: weight_map says that {name} is in {file!r}: expected the name of a "
                ".safetensors file beside it.",
                "Fetch it again.",
            )
        shards.setdefault(file, set()).add(name)
    if not shards:
        raise TokenmillError(f"{index}: weight_map names no tensor.", "Fetch it again.")
    return shards


def _damaged(path: str, error: Exception) -> TokenmillError:
    with open(path, "rb") as source:
        if source.read(8) == b"version ":
            return TokenmillError(
                f"{path}: this is a pointer of Git LFS, not the file.",
                "Fetch the file: `git lfs pull` in its repository.",
            )
    return TokenmillError(f"{path}: no whole safetensors file ({error}).", _AGAIN)


def _no_weights(directory: str) -> TokenmillError:
    names: Sequence[str] = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    others = [name for name in names if name.endswith(_OTHER_SUFFIXES)]
    missing = f"{directory}: neither {WEIGHTS_NAME} nor {INDEX_NAME} is there"
    if not others:
        return TokenmillError(f"{missing}.", "Fetch all files of the checkpoint.")
    return TokenmillError(
        f"{missing}, only {', '.join(others)}; such a file may run code when it is read, or its "
        "format is not known here, so it is not opened.",
        "Take the checkpoint's .safetensors, or convert it where you trust it, in an environment "
        'with transformers: python -c "from transformers import AutoConfig, AutoModel; import '
        f"transformers; d = '{directory}'; c = AutoConfig.from_pretrained(d); getattr("
        "transformers, c.architectures[0]).from_pretrained(d).save_pretrained(d + '-safetensors')"
        '"',
    )
