"""The section [model]: the Transformer's shape, and the weights to start from."""

from typing import Annotated

from pydantic import Field

from tokenmill.config_model import PositiveInt, Section
from tokenmill.model.shape import Head, Mlp, ModelShape, Norm, NormPosition, Positions

HEADS: dict[str, Head] = {
    "causal-lm": "lm",
    "masked-lm": "mlm",
    "classification": "classifier",
}


class ModelConfig(Section):
    """The Transformer's shape."""

    layers: PositiveInt = 4
    d_model: PositiveInt = 256
    heads: PositiveInt = 4
    kv_heads: PositiveInt | None = None
    """Key/value heads (grouped-query attention); None means as many as heads."""
    d_ff: PositiveInt = 1024
    sequence_length: Annotated[int, Field(ge=8, le=65_535)] = 256
    """Tokens a row, in packing, training and serving."""
    positions: Positions = "rope"
    norm: Norm = "layer"
    mlp: Mlp = "gelu"
    use_bias: bool = True
    tie_embeddings: bool = True
    norm_position: NormPosition = "pre"
    """Norms before attention and MLP (GPT-2), or behind them and the embeddings (BERT)."""
    type_vocab_size: Annotated[int, Field(ge=0)] = 0
    """Rows of a token type embedding; BERT has 2, of which packed documents use the first."""
    classes: Annotated[int, Field(ge=0)] = 0
    """How many classes the task classification has: labels of the training split."""
    base_model: str | None = None
    """Directory of a pushed model whose weights training starts from; None means random ones. Its
    shape and tokenizer are taken, where neither the user's file nor an option says another."""

    def shape(self, vocab_size: int, task: str) -> ModelShape:
        """Return the shape of the model with this vocabulary, for this training task.

        Raises:
            ValueError: The shape is impossible; the message names the field.
        """
        return ModelShape(
            **self.model_dump(exclude={"base_model"}),
            vocab_size=vocab_size,
            causal=task == "causal-lm",
            head=HEADS[task],
        )
