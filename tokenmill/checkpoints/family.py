"""What a family of open models is: its settings as a shape, its tensors as our variables."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokenmill.checkpoints.settings import Settings
from tokenmill.model.shape import Head, ModelShape

GELU_NAMES = {"gelu_exact": "gelu", "gelu": "gelu_new"}
"""Our names of GELU, and transformers'."""

GELUS: dict[str, Any] = {
    "gelu": "gelu_exact",
    "gelu_python": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_pytorch_tanh": "gelu",
}
"""transformers' names of GELU, and ours of `ModelShape.mlp`."""


_SIZES = {
    "layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "vocab_size": "vocab_size",
    "sequence_length": "max_position_embeddings",
}


@dataclass(frozen=True)
class Source:
    """The tensors that one of our variables is made of.

    Attributes:
        shapes: Names and stored sizes; several are put beside each other along our last axis.
        transposed: Whether they are stored as [out, in], as torch.nn.Linear keeps them.
        cut: Whether a model may have the first rows alone.
        head: The head that it belongs to; empty for the backbone.
        stacked: Whether several are put on top of each other, along a new first axis: experts.
        heads: How many heads one tensor of q, k and v has, where each head's q, k and v lie beside
            each other; 0 where all of q come first, as here.
    """

    shapes: Mapping[str, tuple[int, ...]]
    transposed: bool = False
    cut: bool = False
    head: str = ""
    stacked: bool = False
    heads: int = 0

    def laid_out_here(self, tensor: np.ndarray) -> np.ndarray:
        """Return a tensor of the file as it stands in the variable, [.., outputs]."""
        values = tensor.T if self.transposed else tensor
        if not self.heads:
            return values
        by_head = values.reshape(*values.shape[:-1], self.heads, 3, -1)
        return np.swapaxes(by_head, -3, -2).reshape(values.shape)

    def laid_out_there(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the tensors of the file, by name, of the variable's values."""
        if self.stacked:
            each = zip(self.shapes, values, strict=True)
            return {n: np.ascontiguousarray(v.T if self.transposed else v) for n, v in each}
        tensors, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + (shape[0] if self.transposed else shape[-1])
            part = values[..., start:stop]
            if self.heads:
                by_part = part.reshape(*part.shape[:-1], 3, self.heads, -1)
                part = np.swapaxes(by_part, -3, -2).reshape(part.shape)
            tensors[name] = np.ascontiguousarray(part.T if self.transposed else part)
            start = stop
        return tensors


Sources = Iterator[tuple[str, Source]]
"""Pairs of a variable's path below the model, such as layer0/mlp/up/kernel, and its source."""


@dataclass(frozen=True)
class Family:
    """A family of models, under one `model_type`.

    Tensors have their names below the backbone, such as layers.0.mlp.up_proj.weight: a checkpoint
    of the backbone alone and one with a head differ in the prefix only.

    Attributes:
        name: transformers' `model_type`.
        heads: By architecture (the class that wrote the checkpoint) the head, or None.
        prefix: What stands before the backbone's tensors in a checkpoint with a head.
        read_shape: Reads the shape from the settings, for a head. It raises TokenmillError where
            a setting cannot be expressed.
        write_settings: The reverse: config.json of a shape. What the family has no setting for is
            left out, so that another shape is read from it.
        sources: Lists backbone and heads for a shape. Those of a head may be missing in a
            checkpoint of another head.
        copies: Lists the tensors that repeat another one for a shape, where they are there.
        window: Reads how many tokens a token attends to; None for all.
        only: By setting the values that can be expressed, of settings that are not read.
        harmless: Patterns of tensors' names that are no weights, or of a part that is never used.
        below_prefix: Beginnings of names of a head's tensors that stand below the prefix, too.
        renamed: Parts of tensors' names as older versions of transformers wrote them.
    """

    name: str
    heads: Mapping[str, Head | None]
    prefix: str
    read_shape: Callable[[Settings, Head | None], ModelShape]
    write_settings: Callable[[ModelShape], dict[str, Any]]
    sources: Callable[[ModelShape], Sources]
    copies: Callable[[ModelShape], Mapping[str, str]]
    window: Callable[[Settings], int | None] = lambda _: None
    only: Mapping[str, Collection[Any]] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()
    below_prefix: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def full_name(self, name: str, head: str) -> str:
        """Return the name in a checkpoint with a head of a tensor of the backbone or of `head`."""
        apart = head and not name.startswith(self.below_prefix)
        return name if apart else self.prefix + name

    def canonical(self, name: str) -> str:
        """Return a tensor's name below the backbone, as transformers writes it today."""
        for old, new in self.renamed.items():
            name = name.replace(old, new)
        return name.removeprefix(self.prefix)


def read_sizes(settings: Settings) -> dict[str, Any]:
    """Read the sizes that most families name alike, as keys of the shape."""
    return {ours: settings.size(theirs) for ours, theirs in _SIZES.items()}


def write_sizes(shape: ModelShape) -> dict[str, Any]:
    """Return the same settings of a shape."""
    return {theirs: getattr(shape, ours) for ours, theirs in _SIZES.items()}


def linear(
    ours: str, theirs: Mapping[str, int], inputs: int, bias: bool, head: str = ""
) -> Sources:
    """List kernel and bias of a linear layer that torch.nn.Linear keeps.

    Args:
        ours: The layer's path.
        theirs: The modules that it is made of, beside each other, and their outputs.
        inputs: Features that go in.
        bias: Whether there are biases.
        head: The head that it belongs to.
    """
    weights = {f"{name}.weight": (outputs, inputs) for name, outputs in theirs.items()}
    yield f"{ours}/kernel", Source(weights, transposed=True, head=head)
    if bias:
        yield f"{ours}/bias", Source({f"{n}.bias": (o,) for n, o in theirs.items()}, head=head)


def layer_norm(ours: str, theirs: str, width: int, head: str = "") -> Sources:
    """List scale and bias of a layer norm."""
    yield f"{ours}/gamma", Source({f"{theirs}.weight": (width,)}, head=head)
    yield f"{ours}/beta", Source({f"{theirs}.bias": (width,)}, head=head)


def rms_norm(ours: str, theirs: str, width: int) -> Sources:
    """List the scale of an RMS norm."""
    yield f"{ours}/scale", Source({f"{theirs}.weight": (width,)})


def table(ours: str, theirs: str, rows: int, width: int, cut: bool = False) -> Sources:
    """List an embedding; `cut` if a model may have the first rows alone."""
    yield f"{ours}/embeddings", Source({f"{theirs}.weight": (rows, width)}, cut=cut)
