"""A checkpoint of an open model: what it is, and its weights for a model of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokenmill.checkpoints.bert import BERT, label_names
from tokenmill.checkpoints.family import Family
from tokenmill.checkpoints.gpt2 import GPT2
from tokenmill.checkpoints.gpt_neox import GPT_NEOX
from tokenmill.checkpoints.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from tokenmill.checkpoints.llama_moe import MIXTRAL, QWEN2_MOE, QWEN3_MOE
from tokenmill.checkpoints.pooling import MODULES_NAME, SentenceModules, read_modules
from tokenmill.checkpoints.settings import Settings, read_settings
from tokenmill.checkpoints.tensor_files import READABLE_DTYPES
from tokenmill.checkpoints.weights import Weights
from tokenmill.contracts.served_model import Pooling
from tokenmill.errors import TokenmillError
from tokenmill.model.same_shape import check_same_shape
from tokenmill.model.shape import Head, ModelShape

if TYPE_CHECKING:
    from tokenmill.model.backbone import Backbone

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        BERT,
        GPT2,
        GPT_NEOX,
        LLAMA,
        MISTRAL,
        QWEN2,
        QWEN3,
        MIXTRAL,
        QWEN2_MOE,
        QWEN3_MOE,
    )
}
"""The families that can be read, by transformers' `model_type`."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A Hugging Face checkpoint, whose settings and tensors' names and sizes have been checked.

    Attributes:
        directory: Where config.json and the weights lie.
        family: transformers' `model_type`, such as llama.
        architecture: The class that wrote it, such as LlamaForCausalLM.
        head: The head that it has; None for a backbone alone.
        shape: The model's shape. Without a head it is that of the backbone with an output
            projection, tied to the embedding in an encoder.
        max_positions: Tokens of the longest row that the model was made for.
        dtypes: Types that the weights are stored in, such as bfloat16.
        parameters: Weights that the model is made of, as stored.
        label_names: Names of a classifier's classes, in their order; none without one.
        pooling: How sentence-transformers makes one vector of a text; None where it is none of its
            models.
        weights: The weights, which are read when they are assigned.
    """

    directory: str
    family: str
    architecture: str
    head: Head | None
    shape: ModelShape
    max_positions: int
    dtypes: tuple[str, ...]
    parameters: int
    label_names: tuple[str, ...]
    pooling: Pooling | None
    weights: Weights

    def assign(self, model: Backbone) -> list[str]:
        """Give a model the checkpoint's weights, one variable after another.

        Args:
            model: A built Decoder or Encoder of this shape; head, classes and a shorter sequence
                may be its own.

        Returns:
            Paths of the variables that the checkpoint has no weights for: of a head to be trained.

        Raises:
            TokenmillError: The model has another shape; a weight is not finite; a tensor does not
                repeat the one that it should. After an error some variables have new values.
        """
        self.check_shape(model.shape_config)
        paths = {v.path.split("/", 1)[1]: v for v in model.base_variables}
        return [paths[kept].path for kept in self.weights.assign(paths)]

    def check_shape(self, shape: ModelShape) -> None:
        """Check that a model of a shape can have the weights.

        Raises:
            TokenmillError: It names what differs; head and classes may, and rows may be shorter.
        """
        ours, theirs = shape.backbone(), self.shape.backbone()
        ours["causal"], theirs["causal"] = shape.causal, self.shape.causal
        if shape.head == self.shape.head:
            ours["tie_embeddings"] = shape.tie_embeddings
            theirs["tie_embeddings"] = self.shape.tie_embeddings
        check_same_shape(self.directory, ours, theirs)
        _check_length(self.directory, shape.sequence_length, self.max_positions)


def read_checkpoint(directory: str, sequence_length: int | None = None) -> Checkpoint:
    """Read what a checkpoint is, from config.json and the headers of its weights.

    No weight is read. All that cannot be expressed here is refused by name.

    Args:
        directory: A local directory with config.json and model.safetensors, or several
            *.safetensors with their index; or one of sentence-transformers.
        sequence_length: Tokens of the rows that the model shall have, at most what it was made
            for; None for as many.

    Raises:
        TokenmillError: Names the file, the setting or tensor, and what to do.
    """
    directory, modules = read_modules(directory)
    settings = read_settings(directory)
    family = _read_family(settings)
    architecture = _read_architecture(settings, family)
    head = family.heads[architecture]
    try:
        shape = family.read_shape(settings, head)
    except ValueError as error:
        raise TokenmillError(
            f"{settings.path}: no such model can be built: {error}",
            "docs/models.md lists the families that can be read; compare the file with the "
            "publisher's.",
        ) from None
    if modules is not None:
        _check_modules(directory, modules, shape)
    longest = shape.sequence_length
    length = longest if sequence_length is None else sequence_length
    _check_length(directory, length, longest)
    _check_window(settings, family, length)
    settings.refuse_others(family.only)
    weights = Weights(directory, family, shape, head)
    tensors = weights.tensors().values()
    return Checkpoint(
        directory=directory,
        family=family.name,
        architecture=architecture,
        head=head,
        shape=replace(shape, sequence_length=length),
        max_positions=longest,
        dtypes=tuple(sorted({READABLE_DTYPES[tensor.dtype] for tensor in tensors})),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        label_names=tuple(label_names(settings)) if head == "classifier" else (),
        pooling=None if modules is None else modules.pooling(longest),
        weights=weights,
    )


def _check_modules(directory: str, modules: SentenceModules, shape: ModelShape) -> None:
    if shape.causal:
        raise TokenmillError(
            f"{directory}: {MODULES_NAME} pools what a decoder computes: expected an encoder.",
            f"To take the Transformer without them, remove {MODULES_NAME}.",
        )
    if modules.width != shape.d_model:
        raise TokenmillError(
            f"{directory}: the pooling has word_embedding_dimension = {modules.width}: expected "
            f"{shape.d_model}, the model's width.",
            "The files are of different models: fetch all of them again.",
        )


def _read_family(settings: Settings) -> Family:
    if "model_type" not in settings:
        raise settings.refusal("model_type", f"one of {', '.join(FAMILIES)}")
    return settings.choice("model_type", FAMILIES, "")


def _read_architecture(settings: Settings, family: Family) -> str:
    named = settings.list_of_names("architectures")
    if len(named) != 1 or named[0] not in family.heads:
        raise settings.refusal(
            "architectures", f"one of {', '.join(family.heads)}, as no other head is known here"
        )
    return named[0]


def _check_length(directory: str, length: int, longest: int) -> None:
    if length > longest:
        raise TokenmillError(
            f"model.sequence_length = {length}: {directory} was made for rows of at most "
            f"{longest} tokens (config.json).",
            f"Take shorter rows: model.sequence_length = {longest}.",
        )


def _check_window(settings: Settings, family: Family, length: int) -> None:
    window = family.window(settings)
    if window is not None and window < length:
        raise settings.refusal(
            "sliding_window",
            f"at least {length}, the tokens of a row, since every token attends to all of its row "
            f"here, and not to the last {window}",
            f"Take shorter rows: model.sequence_length = {window}.",
        )
