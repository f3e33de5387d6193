"""The section [model]: the Transformer's shape, and the weights to start from."""

from typing import Annotated, Any

from pydantic import Field

from tokenmill.config_model import PositiveInt, Section
from tokenmill.model.shape import (
    Balance,
    Head,
    Mlp,
    ModelShape,
    Norm,
    NormPosition,
    Positions,
    RopeScaling,
    Router,
)

PositiveFloat = Annotated[float, Field(gt=0.0)]

EXPERTS_PER_TOKEN = 2
"""Experts that a token passes where nothing is said: GShard's and Mixtral's."""

HEADS: dict[str, Head] = {
    "causal-lm": "lm",
    "masked-lm": "mlm",
    "classification": "classifier",
}


class ModelConfig(Section):
    """The Transformer's shape."""

    layers: PositiveInt = 4
    """Blocks of attention and MLP, one above the other; 4 train in minutes on two CPU cores."""
    d_model: PositiveInt = 256
    """Features of a token between the layers (the hidden size); a multiple of heads, if head_dim
    is not set."""
    heads: PositiveInt = 4
    """Query heads of each attention; by default of 64 features each, as in GPT-2."""
    kv_heads: PositiveInt | None = None
    """Key/value heads (grouped-query attention); None means as many as heads."""
    d_ff: PositiveInt = 1024
    """Features inside each MLP; by default 4 x d_model, as in GPT-2 and BERT."""
    sequence_length: Annotated[int, Field(ge=8, le=65_535)] = 256
    """Tokens a row, in packing, training and serving."""
    positions: Positions = "rope"
    """How a token knows its place: rotated queries and keys (rope, no parameters), or an embedding
    of each of the sequence_length places (learned; GPT-2, BERT)."""
    norm: Norm = "layer"
    """Normalization: layer (LayerNorm; GPT-2, BERT) or rms (RMSNorm; Llama)."""
    mlp: Mlp = "gelu"
    """gelu is the tanh form, gelu_exact the one with the error function (BERT as released)."""
    use_bias: bool = True
    """Add biases to the projections of attention and MLP, as GPT-2 and BERT do; Llama has none."""
    tie_embeddings: bool = True
    """Use the token embedding's weights for the output layer, too: saves vocab_size x d_model
    parameters."""
    norm_position: NormPosition = "pre"
    """Norms before attention and MLP (GPT-2), or behind them and the embeddings (BERT)."""
    type_vocab_size: Annotated[int, Field(ge=0)] = 0
    """Rows of a token type embedding; BERT has 2, of which packed documents use the first."""
    classes: Annotated[int, Field(ge=0)] = 0
    """How many classes the task classification has: labels of the training split."""
    head_dim: PositiveInt | None = None
    """Width of a head, in features; None means d_model / heads."""
    qkv_bias: bool | None = None
    """Biases of the projections to q, k and v (Qwen 2); None means as use_bias."""
    qk_norm: bool = False
    """RMS norms of each head's q and k before they are rotated (Qwen 3)."""
    norm_epsilon: PositiveFloat | None = None
    """None means 1e-6 for rms, 1e-5 for layer in a decoder, 1e-12 in an encoder."""
    rope_base: PositiveFloat = 10_000.0
    """Base of rope's wavelengths (theta), by default that of Su et al. 2021; models of long texts
    have more, such as Llama 3's 500,000."""
    rope_scaling: RopeScaling = "none"
    """Lower frequencies of rope for longer texts: linear, or Llama 3's by wavelength."""
    rope_factor: Annotated[float, Field(ge=1.0)] = 1.0
    """What rope_scaling divides frequencies by."""
    rope_low_frequency_factor: PositiveFloat = 1.0
    """llama3: waves longer than rope_original_length / this are lowered in full."""
    rope_high_frequency_factor: PositiveFloat = 4.0
    """llama3: waves shorter than rope_original_length / this are kept."""
    rope_original_length: PositiveInt = 8192
    """llama3: tokens of the sequences before the scaling."""
    experts: PositiveInt = 1
    """MLPs beside each other in a layer, of which a router chooses for each token (mixture of
    experts); 1 is a dense model."""
    experts_per_token: PositiveInt | None = None
    """Experts that each token passes; None means 2, as in Mixtral. No token is dropped: an expert
    takes as many as are sent to it."""
    shared_experts: Annotated[int, Field(ge=0)] = 0
    """Experts that every token passes besides (DeepSeek); their common width is a multiple of
    expert_d_ff."""
    expert_d_ff: PositiveInt | None = None
    """Features inside one expert; None means d_ff, which is then that of the dense layers, too."""
    moe_every: PositiveInt = 1
    """Every so many layers the last has experts, the others one MLP of d_ff; 1 means all."""
    first_dense_layers: Annotated[int, Field(ge=0)] = 0
    """So many layers at the bottom have no experts but one MLP of d_ff (DeepSeek-V3 has 3)."""
    router: Router = "softmax"
    """What makes gates of the router's logits: softmax over all experts (Mixtral, Qwen), or sigmoid
    of each (DeepSeek-V3)."""
    normalize_gates: bool = True
    """Divide the gates of a token's experts by their sum (Mixtral); Qwen 1.5 and OLMoE do not."""
    router_scale: PositiveFloat = 1.0
    """What the gates are multiplied by then; DeepSeek-V3 has 2.5."""
    shared_expert_gate: bool = False
    """Multiply what the shared experts add by the sigmoid of a projection (Qwen 2 MoE)."""
    balance: Balance = "auxiliary"
    """What keeps experts equally busy: an auxiliary loss, for each row; a bias on each expert's
    score in choosing, raised or lowered after every step, without a loss; or none."""
    balance_weight: Annotated[float, Field(ge=0)] | None = None
    """Factor of the auxiliary loss (None means 0.01), or what a step adds to or takes from a bias
    (0.001)."""
    router_z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Factor of the mean squared log-partition of the router's logits in the loss; ST-MoE's is
    1e-3."""
    base_model: str | None = None
    """Directory of a pushed model, or of a Hugging Face checkpoint, whose weights training starts
    from; None means random ones. Its shape and tokenizer are taken, where neither the user's file
    nor an option says another."""

    def shape(self, vocab_size: int, task: str) -> ModelShape:
        """Return the shape of the model with this vocabulary, for this training task.

        Raises:
            ValueError: The shape is impossible; the message names the field.
        """
        return ModelShape(
            **self.shape_keys({"base_model"}),
            vocab_size=vocab_size,
            causal=task == "causal-lm",
            head=HEADS[task],
        )

    def shape_keys(self, excluded: set[str]) -> dict[str, Any]:
        """Return the fields of a shape that these keys are, with what depends on others filled in.

        Args:
            excluded: Keys that are no fields of a shape.
        """
        fields = self.model_dump(exclude=excluded)
        if fields["experts_per_token"] is None:
            fields["experts_per_token"] = EXPERTS_PER_TOKEN if self.experts > 1 else 1
        return fields
