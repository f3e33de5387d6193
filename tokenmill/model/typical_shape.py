"""Shapes that can be costed but not trained here, and a typical shape for a bare parameter count.

Published models have encoders beside decoders and relative positions. Parallel attention and MLP
(GPT-J, PaLM) change the speed of a layer, not what is counted.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from tokenmill.cost.checks import check_fraction, check_positive
from tokenmill.model.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class PlannedShape(ModelShape):
    """A Transformer's shape with what published models have beyond ``ModelShape``.

    Attributes:
        encoder_layers: Encoder layers beside the ``layers`` of the decoder, whose layers then
            attend to the encoder too (Vaswani et al. 2017); 0 is a single stack.
        encoder_token_share: Share of the counted tokens that the encoder reads; the decoder
            reads the rest.
        relative_positions: Whether each layer projects relative positions by a matrix of its own
            (Dai et al. 2019, "Transformer-XL"; Gopher, Chinchilla).
    """

    encoder_layers: int = 0
    encoder_token_share: float = 0.5
    relative_positions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.encoder_layers
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(
                f"model.encoder_layers = {value!r}: expected a whole number of at least 0; "
                "correct it."
            )
        if value and self.moe_layers and self.moe_share < 1:
            raise ValueError(
                f"model.encoder_layers = {value}: expected 0 where only some layers have experts "
                "(moe_every, first_dense_layers); leave one of them out."
            )
        check_fraction("encoder_token_share", self.encoder_token_share)

    @property
    def _shares(self) -> tuple[float, float]:
        """Encoder's and decoder's share of the tokens."""
        share = self.encoder_token_share if self.encoder_layers else 0.0
        return share, 1 - share

    def params_by_part(self) -> dict[str, int]:
        """Count the parameters exactly, as ``ModelShape`` does, with what this class adds."""
        layers = self.layers + self.encoder_layers
        attentions = layers + (self.layers if self.encoder_layers else 0)
        relative = layers * self.d_model * self.attention_width if self.relative_positions else 0
        norms = layers + attentions + (2 if self.encoder_layers else 1)
        return {
            **super().params_by_part(),
            "attention": attentions * self.attention_params + relative,
            "norms": norms * self.norm_params + attentions * self.qk_norm_params,
        }

    def _mlps_params(self, experts: int) -> int:
        own = super()._mlps_params(experts)
        return own + own // self.layers * self.encoder_layers  # its layers are as the decoder's

    @property
    def attention_products(self) -> float:
        """Multiply-adds per token of all attention projections, averaged over the two stacks."""
        encoder, decoder = self._shares
        d, width, kv = self.d_model, self.attention_width, self.kv_dim
        own = 2 * d * (width + kv)
        products = own * (encoder * self.encoder_layers + decoder * self.layers)
        if self.encoder_layers:  # cross-attention: q and o of decoder tokens, k and v of encoder's
            products += self.layers * 2 * d * (decoder * width + encoder * kv)
        if self.relative_positions:
            products += self.layers * d * width
        return products

    @property
    def score_features(self) -> float:
        """Query features that meet each attended token, averaged over the two stacks."""
        encoder, decoder = self._shares
        attentions = 2 * self.layers if self.encoder_layers else self.layers
        return self.attention_width * (encoder * self.encoder_layers + decoder * attentions)

    @property
    def mlp_products(self) -> float:
        """Multiply-adds per token of the MLPs, averaged over the two stacks."""
        encoder, decoder = self._shares
        own = super().mlp_products
        return own * decoder + own / self.layers * self.encoder_layers * encoder

    @property
    def logit_products(self) -> float:
        """Multiply-adds per token of the output projection, which only the decoder has."""
        return self._shares[1] * super().logit_products

    @property
    def head_products(self) -> float:
        """Multiply-adds per token of the dense layer before it, likewise."""
        return self._shares[1] * super().head_products


# (parameters, layers) of published decoders, between which a bare count is interpolated: GPT-3's
# family (Brown et al. 2020, table 2.1) and PaLM 540B.
_USUAL_LAYERS = (
    (1e6, 2),
    (1e7, 4),
    (125e6, 12),
    (350e6, 24),
    (1.3e9, 24),
    (6.7e9, 32),
    (13e9, 40),
    (175e9, 96),
    (540e9, 118),
    (1e13, 240),
)
TYPICAL_VOCAB_SIZE = 50_257
TYPICAL_SEQUENCE_LENGTH = 2048


def typical_shape(
    params: float,
    sequence_length: int = TYPICAL_SEQUENCE_LENGTH,
    vocab_size: int = TYPICAL_VOCAB_SIZE,
) -> PlannedShape:
    """Return a GPT-3-like decoder of about this many parameters.

    Depth is interpolated between published models; the width then follows from N = 12·L·d² + V·d
    (MLP of 4·d, tied embeddings), rounded to whole heads of 128 features (64 below 1e9).

    Args:
        params: N, all parameters.
        sequence_length: T, tokens.
        vocab_size: V, rows of the embedding.

    Returns:
        The shape. Its own count differs from ``params`` by the rounding: some per cent, more for
        very small models.
    """
    check_positive("params", params, "parameters")
    log = math.log(params)
    points = [(math.log(size), math.log(layers)) for size, layers in _USUAL_LAYERS]
    pair = next(((a, b) for a, b in itertools.pairwise(points) if log <= b[0]), points[-2:])
    (x0, y0), (x1, y1) = pair
    layers = max(1, round(math.exp(y0 + (y1 - y0) * (log - x0) / (x1 - x0))))
    root = math.sqrt(vocab_size**2 + 4 * 12 * layers * params)
    width = (root - vocab_size) / (24 * layers)
    head = 128 if params >= 1e9 else 64
    heads = max(1, round(width / head))
    return PlannedShape(
        layers=layers,
        d_model=heads * head,
        heads=heads,
        d_ff=4 * heads * head,
        vocab_size=vocab_size,
        sequence_length=sequence_length,
        positions="rope",
        norm="layer",
        use_bias=True,
        mlp="gelu",
        tie_embeddings=True,
    )
