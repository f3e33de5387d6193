"""A checkpoint's tensors as the weights of a model: checked by name and size, then read."""

import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from tokenmill.checkpoints.family import Family, Source
from tokenmill.checkpoints.tensor_files import READABLE_DTYPES, Tensor, TensorFiles
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import Head, ModelShape

_ANOTHER = "The files are of different checkpoints, or incomplete: fetch all of them again."


class Weights:
    """The tensors of a directory, each known to be a part of the model or harmless.

    Tensors are named as below the backbone (`Family.canonical`).

    Args:
        directory: Where the files lie.
        family: The family.
        shape: The checkpoint's shape.
        head: The head that it says it has.

    Raises:
        TokenmillError: A tensor is missing, unknown, or of another size or type.
    """

    def __init__(self, directory: str, family: Family, shape: ModelShape, head: Head | None):
        self._directory, self._files = directory, TensorFiles(directory)
        self._names = self._canonical_names(family)
        self._sources = self._find_sources(family, shape, head)
        self._copies = self._find_copies(family, shape)
        self._check_leftover(family)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that the model is made of, by name."""
        used = [name for source in self._sources.values() for name in source.shapes]
        return {self._names[name]: self._tensor(name) for name in used}

    def assign(self, variables: Mapping[str, Any]) -> list[str]:
        """Give variables their values, one after another; at most one's are held beside them.

        Args:
            variables: Keras variables by their path below the model.

        Returns:
            The paths of those that there are no tensors for.

        Raises:
            TokenmillError: A value is not finite, or a tensor does not repeat the one that it
                should. Some variables have new values then.
        """
        kept = []
        for path, variable in variables.items():
            source = self._sources.get(path)
            if source is None or not _fits(source, variable):
                kept.append(path)
            else:
                variable.assign(self._values(source, variable))
        self._check_copies()
        return kept

    def check_values(self) -> None:
        """Read every tensor once, one after another.

        Raises:
            TokenmillError: A value is not finite, or a tensor does not repeat the one that it
                should.
        """
        for source in self._sources.values():
            for name in source.shapes:
                self._check_finite(name, self._files.read(self._names[name]))
        self._check_copies()

    def _check_finite(self, name: str, values: np.ndarray) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            raise TokenmillError(
                f"{self._tensor(name).file}: tensor {self._names[name]}: "
                f"{int(values.size - finite.sum()):,} of {values.size:,} values are not finite in "
                f"{values.dtype}.",
                "The training diverged, or the file is damaged: take another checkpoint.",
            )

    def _tensor(self, name: str) -> Tensor:
        return self._files.tensors[self._names[name]]

    def _canonical_names(self, family: Family) -> dict[str, str]:
        """Return the names in the files by the names below the backbone."""
        names: dict[str, str] = {}
        for name, tensor in self._files.tensors.items():
            canonical = family.canonical(name)
            if canonical in names:
                raise TokenmillError(
                    f"{tensor.file}: the tensors {names[canonical]} and {name} are the same one, "
                    f"{canonical}.",
                    "Remove the one that is not the model's.",
                )
            names[canonical] = name
        return names

    def _find_sources(
        self, family: Family, shape: ModelShape, head: Head | None
    ) -> dict[str, Source]:
        """Return what each variable is made of, once all of it is there in its size and type."""
        sources = {}
        for path, source in family.sources(shape):
            missing = [name for name in source.shapes if name not in self._names]
            if missing and source.head and source.head != head:
                continue
            if missing:
                raise TokenmillError(
                    f"{self._directory}: there is no tensor {missing[0]} (as it is called below "
                    f"{family.prefix!r}) among the {len(self._names)} that are there, but "
                    "config.json asks for it.",
                    _ANOTHER,
                )
            for name, expected in source.shapes.items():
                self._check_tensor(name, expected)
            sources[path] = source
        return sources

    def _find_copies(self, family: Family, shape: ModelShape) -> dict[str, str]:
        """Return the tensors that are there and have to repeat another one, with that."""
        copies = {c: o for c, o in family.copies(shape).items() if c in self._names}
        for copy, original in copies.items():
            self._check_tensor(copy, self._tensor(original).shape)
        return copies

    def _check_tensor(self, name: str, expected: tuple[int, ...]) -> None:
        tensor = self._tensor(name)
        if tensor.shape != expected:
            raise TokenmillError(
                f"{tensor.file}: tensor {self._names[name]} has the shape {list(tensor.shape)}: "
                f"expected {list(expected)} by config.json.",
                _ANOTHER,
            )
        if tensor.dtype not in READABLE_DTYPES:
            raise TokenmillError(
                f"{tensor.file}: tensor {self._names[name]} has the type {tensor.dtype}: expected "
                f"one of {', '.join(READABLE_DTYPES)}.",
                "Take a checkpoint whose weights have 16 or 32 bits.",
            )

    def _check_leftover(self, family: Family) -> None:
        used = {name for source in self._sources.values() for name in source.shapes}
        for name in sorted(self._names.keys() - used - self._copies.keys()):
            if not any(re.fullmatch(pattern, name) for pattern in family.harmless):
                raise TokenmillError(
                    f"{self._tensor(name).file}: tensor {self._names[name]} belongs to no part of "
                    f"a {family.name} model with these settings.",
                    "config.json may be of another checkpoint; a tensor that the model does not "
                    "use has to be removed.",
                )

    def _check_copies(self) -> None:
        for copy, original in self._copies.items():
            name, other = self._names[copy], self._names[original]
            row = self._files.first_difference(name, other)
            if row is not None:
                raise TokenmillError(
                    f"{self._tensor(copy).file}: tensor {name} differs from {other} in row {row}, "
                    "though config.json says that they are one (tie_word_embeddings).",
                    "If they were trained apart, set tie_word_embeddings = false in config.json.",
                )

    def _values(self, source: Source, variable: Any) -> np.ndarray:
        """Read a variable's values, laid out as here and in its type."""
        dtype = np.dtype(ml_dtypes.bfloat16 if variable.dtype == "bfloat16" else variable.dtype)
        values, start = np.empty(tuple(variable.shape), dtype), 0
        for place, name in enumerate(source.shapes):
            part = self._files.read(self._names[name], len(values) if source.cut else None)
            part = source.laid_out_here(part)
            beside = values[..., start : start + part.shape[-1]]
            target = values[place] if source.stacked else beside
            with np.errstate(over="ignore"):  # what overflows is told below
                target[...] = part
            self._check_finite(name, target)
            start += part.shape[-1]
        return values


def _fits(source: Source, variable: Any) -> bool:
    """Return whether a head's tensor has the variable's size; those of the backbone do."""
    if not source.head:
        return True
    (sizes,) = source.shapes.values()
    return (sizes[::-1] if source.transposed else sizes) == tuple(variable.shape)
