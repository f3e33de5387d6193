"""Checkpoints on disk or in an object store: written whole or not at all, checked when read.

A checkpoint is a directory `step-<step>` with

    variables-<n>.safetensors   weights and optimizer, bit by bit, by name
    state.json                  everything else that the next step depends on
    manifest.json               size and SHA-256 of the other files; written last

Without its manifest a directory is no checkpoint: that is what a process leaves that was killed
while it saved. This needs no rename of directories, which object stores do not have. A write that
the machine lost (power, disk) shows in the checksums.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
import tensorflow as tf

from tokenmill.files import read_json, write_json

FORMAT = "tokenmill-checkpoint-1"
MANIFEST_NAME = "manifest.json"
STATE_NAME = "state.json"

# Bounds the memory beside the snapshot: a file is put together in memory to be hashed.
_FILE_BYTES = 256 * 2**20
_NAME = re.compile(r"step-(\d{10})/?")


class CorruptCheckpointError(Exception):
    """A checkpoint's files are not what its manifest says."""


@dataclass(frozen=True)
class Checkpoint:
    """A training at one step.

    Attributes:
        step: Steps done.
        variables: Arrays by unique name.
        state: What else the next step depends on; JSON.
    """

    step: int
    variables: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


class CheckpointDirectory:
    """The checkpoints of one training.

    Args:
        directory: On any filesystem that TensorFlow knows.
    """

    def __init__(self, directory: str):
        self.directory = directory

    def path(self, step: int) -> str:
        """Where the checkpoint of a step is."""
        return os.path.join(self.directory, f"step-{step:010d}")

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, in order."""
        return [
            step
            for step in self._all_steps()
            if tf.io.gfile.exists(os.path.join(self.path(step), MANIFEST_NAME))
        ]

    def _all_steps(self) -> list[int]:
        if not tf.io.gfile.isdir(self.directory):
            return []
        names = map(_NAME.fullmatch, tf.io.gfile.listdir(self.directory))
        return sorted(int(name[1]) for name in names if name)

    def write(self, checkpoint: Checkpoint) -> int:
        """Write a checkpoint in place of one of the same step; return its size in bytes."""
        directory = self.path(checkpoint.step)
        self.delete(checkpoint.step)
        tf.io.gfile.makedirs(directory)
        files = {}
        for number, group in enumerate(_groups(checkpoint.variables)):
            content = safetensors.numpy.save(group)
            files[f"variables-{number:05d}.safetensors"] = _write(
                directory, f"variables-{number:05d}.safetensors", content
            )
        state = json.dumps(checkpoint.state, sort_keys=True).encode()
        files[STATE_NAME] = _write(directory, STATE_NAME, state)
        manifest = {
            "format": FORMAT,
            "step": checkpoint.step,
            "files": files,
            "dtypes": {n: a.dtype.name for n, a in checkpoint.variables.items()},
        }
        write_json(os.path.join(directory, MANIFEST_NAME), manifest)
        return sum(entry["bytes"] for entry in files.values())

    def read(self, step: int) -> Checkpoint:
        """Read a checkpoint and check its files.

        Raises:
            CorruptCheckpointError: A file is missing, of another size or of another checksum.
        """
        directory = self.path(step)
        try:
            manifest = read_json(os.path.join(directory, MANIFEST_NAME))
            if manifest["format"] != FORMAT:
                raise CorruptCheckpointError(
                    f"{directory}: format {manifest['format']!r}, expected {FORMAT!r}"
                )
            contents = {
                name: _read(directory, name, entry) for name, entry in manifest["files"].items()
            }
            variables: dict[str, np.ndarray] = {}
            for name, content in contents.items():
                if name != STATE_NAME:
                    variables.update(safetensors.numpy.load(content))
            typed = {
                name: variables[name].view(_dtype(dtype))
                for name, dtype in manifest["dtypes"].items()
            }
            return Checkpoint(step, typed, json.loads(contents[STATE_NAME]))
        except (tf.errors.OpError, ValueError, KeyError, OSError) as error:
            raise CorruptCheckpointError(f"{directory}: {error}") from error

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest sound checkpoint, and what is wrong with each newer one."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.read(step), problems
            except CorruptCheckpointError as error:
                problems.append(str(error))
        return None, problems

    def delete(self, step: int) -> None:
        """Delete a checkpoint, whole or not, beginning with its manifest."""
        directory = self.path(step)
        if not tf.io.gfile.isdir(directory):
            return
        manifest = os.path.join(directory, MANIFEST_NAME)
        if tf.io.gfile.exists(manifest):
            tf.io.gfile.remove(manifest)
        tf.io.gfile.rmtree(directory)

    def delete_unfinished(self) -> list[int]:
        """Delete what killed saves have left; return their steps."""
        unfinished = sorted(set(self._all_steps()) - set(self.steps()))
        for step in unfinished:
            self.delete(step)
        return unfinished

    def prune(
        self, keep: "KeepPolicy", newest: int, protected: frozenset[int] = frozenset()
    ) -> list[int]:
        """Delete the checkpoints that the policy does not keep; return their steps.

        Args:
            keep: What stays.
            newest: The step saved last. Later ones were corrupt, or this attempt would have
                continued from them; it goes another way to them, and they go.
            protected: Steps that stay whatever the policy says.
        """
        steps = self.steps()
        kept = keep.kept([s for s in steps if s <= newest], self._eval_loss) | protected
        deleted = [step for step in steps if step not in kept]
        for step in deleted:
            self.delete(step)
        return deleted

    def _eval_loss(self, step: int) -> float | None:
        """Return the eval loss at this step; None if it was not evaluated or cannot be read."""
        try:
            state = read_json(os.path.join(self.path(step), STATE_NAME))
            evaluations = dict(map(tuple, state["record"]["evaluations"]))
        except (tf.errors.OpError, ValueError, KeyError):
            return None
        return evaluations.get(step)


@dataclass(frozen=True)
class KeepPolicy:
    """A rule that says which checkpoints stay.

    Attributes:
        last: So many newest ones, at least one.
        every_steps: Also those of steps that are a multiple of this.
        best: Also the one of the lowest eval loss.
    """

    last: int
    every_steps: int | None = None
    best: bool = True

    def kept(self, steps: list[int], eval_loss: Any) -> frozenset[int]:
        """Return those of `steps` (ascending) whose checkpoints stay.

        Args:
            steps: All there are.
            eval_loss: A function of a step: its eval loss, or None.
        """
        kept = set(steps[-max(1, self.last) :])
        if self.every_steps is not None:
            kept |= {step for step in steps if step % self.every_steps == 0}
        if self.best:
            losses = [(loss, step) for step in steps if (loss := eval_loss(step)) is not None]
            kept |= {step for _, step in sorted(losses)[:1]}
        return frozenset(kept)


def _groups(variables: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Variables in files of about `_FILE_BYTES`, types that safetensors lacks as integers."""
    group: dict[str, np.ndarray] = {}
    size = 0
    for name, array in variables.items():
        if size and size + array.nbytes > _FILE_BYTES:
            yield group
            group, size = {}, 0
        stored = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
        group[name] = np.ascontiguousarray(stored).reshape(array.shape)
        size += array.nbytes
    if group:
        yield group


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _write(directory: str, name: str, content: bytes) -> dict[str, Any]:
    with tf.io.gfile.GFile(os.path.join(directory, name), "wb") as out:
        out.write(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _read(directory: str, name: str, entry: Mapping[str, Any]) -> bytes:
    path = os.path.join(directory, name)
    with tf.io.gfile.GFile(path, "rb") as source:
        content = source.read()
    if len(content) != entry["bytes"]:
        raise CorruptCheckpointError(
            f"{path}: {len(content)} bytes, expected {entry['bytes']} as in the manifest"
        )
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise CorruptCheckpointError(f"{path}: its SHA-256 is not the manifest's")
    return content
