"""Floating-point operations of training: per token, per run, and as a share of the peak.

Only matrix products count, at 2 FLOPs (multiply and add) per weight and token; norms, softmax,
biases and activation functions are left out, as in every source named here. A backward pass costs
two forward passes. Embedding look-ups are no products and cost nothing; the output projection
does, tied or not.

*Model* FLOPs are what the mathematics needs, *hardware* FLOPs also what recomputation of
activations repeats. MFU divides model FLOPs by the peak, HFU hardware FLOPs (Chowdhery et al.
2022, "PaLM", appendix B). Never divide one kind by the other's utilization.

Of a frozen matrix (LoRA) the backward pass has one product, the gradient by its input, and not the
gradient by the matrix: 4 FLOPs per weight and token instead of 6. That the lowest layer's inputs
need no gradient either is left out, as it is of embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tokenmill.cost.checks import check_fraction, check_positive
from tokenmill.model.lora import LoraConfig, head_params, trains_head
from tokenmill.model.shape import ModelShape, query_blocks

Recompute = Literal["none", "selective", "full"]
"""Which activations a backward pass computes again (Korthikanti et al. 2022).

``selective`` repeats attention scores and values, ``full`` the forward pass of every layer; the
output projection is never repeated.
"""

FLOPS_PER_MULTIPLY_ADD = 2
# Gradients of a product's two operands are two products of the same size (Kaplan et al. 2020).
BACKWARD_PER_FORWARD = 2
TRAINING_FLOPS_PER_PARAM = FLOPS_PER_MULTIPLY_ADD * (1 + BACKWARD_PER_FORWARD)


def check_recompute(recompute: str) -> None:
    """Raise unless the name of a recomputation scheme is known.

    Args:
        recompute: The name.

    Raises:
        ValueError: If it is unknown.
    """
    allowed = get_args(Recompute)
    if recompute not in allowed:
        raise ValueError(
            f"recompute = {recompute!r}: expected one of {', '.join(allowed)}; choose one of them."
        )


def flops_per_token_6n(params: float, frozen: float = 0.0) -> float:
    """Return training FLOPs per token by the rule 6·N, 4·N of frozen parameters.

    N is what the caller says it is. Published totals (PaLM, Chinchilla, Llama) use all
    parameters; ``six_n`` gives both that and the N that counts products.

    Args:
        params: N, parameters (of a mixture of experts, the active ones), adapters included.
        frozen: Those of them without a gradient of their own (LoRA).

    Returns:
        FLOPs per token, forward and backward: 6·N (Kaplan et al. 2020, sec. 2.1).
    """
    check_positive("params", params, "parameters")
    return float(TRAINING_FLOPS_PER_PARAM * params - FLOPS_PER_MULTIPLY_ADD * frozen)


@dataclass(frozen=True, kw_only=True)
class SixN:
    """The rule 6·N under both meanings of N, in training FLOPs per token.

    Attributes:
        in_products: N = non-embedding parameters and output projection. Nearest the exact count.
        total: N = all parameters, as most papers report; of experts those that a token passes.
    """

    in_products: float
    total: float


def six_n(shape: ModelShape, lora: LoraConfig | None = None) -> SixN:
    """Apply the rule 6·N to a shape under both meanings of N.

    Args:
        shape: The model.
        lora: Adapters that are trained instead of the weights, which then count 4·N.

    Returns:
        Training FLOPs per token, attention scores not counted.
    """

    def rule(params: float) -> float:
        if lora is None:
            return flops_per_token_6n(params)
        return flops_per_token_6n(params + lora.params(shape), params - head_params(shape))

    return SixN(in_products=rule(shape.params_in_products), total=rule(shape.params_active))


def flops_per_token_palm(
    *,
    params: float,
    layers: int,
    heads: int,
    head_dim: int,
    sequence_length: int,
    frozen: float = 0.0,
) -> float:
    """Count training FLOPs per token as PaLM does for MFU.

    For models whose heads are not d_model / heads wide (PaLM itself), or of which only the
    parameter count is known; otherwise use ``flops_per_token``.

    Args:
        params: N, parameters that take part in products (PaLM uses all of them).
        layers: L, layers.
        heads: H, query heads.
        head_dim: Q, features per head.
        sequence_length: T, tokens.
        frozen: Parameters among N without a gradient of their own (LoRA).

    Returns:
        FLOPs per token: 6·N + 12·L·H·Q·T (PaLM, appendix B); the causal half is not taken.
    """
    width = heads * head_dim
    scores = scores_and_values_flops(layers, sequence_length, width)
    return flops_per_token_6n(params, frozen) + (1 + BACKWARD_PER_FORWARD) * scores


def trained_flops_per_token(
    shape: ModelShape, dropout: bool = False, lora: LoraConfig | None = None
) -> float:
    """Count the training FLOPs a token that this trainer computes, recomputation left out.

    They are the exact count less the blocks of causal scores that are masked as a whole: with n
    blocks of queries (n + 1) / 2n of the scores are computed. Dropout needs all of them.
    """
    count = flops_per_token(shape, lora=lora)
    blocks = query_blocks(shape.sequence_length) if shape.causal and not dropout else 1
    skipped = 1 - (blocks + 1) / (2 * blocks)
    return count.training - (1 + BACKWARD_PER_FORWARD) * count.attention_scores_values * skipped


def scores_and_values_flops(layers: int, sequence_length: int, attention_width: float) -> float:
    """Count forward FLOPs per token of q·k scores and of the weighted sum of values.

    Args:
        layers: L, layers.
        sequence_length: T, tokens attended to.
        attention_width: Query heads times head width (d_model in most models).

    Returns:
        FLOPs per token: two products of 2·T·width in each layer, 4·L·T·width in all. Forward and
        backward together that is the 12·L·T·d of PaLM, appendix B.
    """
    check_positive("layers", layers, "layers")
    check_positive("sequence_length", sequence_length, "tokens")
    check_positive("attention_width", attention_width, "features")
    products = 2
    return float(FLOPS_PER_MULTIPLY_ADD * products * layers * sequence_length * attention_width)


@dataclass(frozen=True, kw_only=True)
class TokenFlops:
    """FLOPs per token by part of one forward pass, and what training makes of them.

    Attributes:
        attention_projections: Forward FLOPs of q, k, v and o.
        attention_scores_values: Forward FLOPs of scores and weighted values.
        mlp: Forward FLOPs of the MLPs.
        head: Forward FLOPs of an encoder's dense layer before the logits.
        output_projection: Forward FLOPs of the logits.
        adapters: Forward FLOPs of LoRA's adapters; 0 without.
        frozen: Forward FLOPs, among all these, of products with a frozen matrix.
        causal_half: Whether only the unmasked half of the scores was counted.
        recompute: Which activations the backward pass computes again.
    """

    attention_projections: float
    attention_scores_values: float
    mlp: float
    head: float
    output_projection: float
    causal_half: bool
    recompute: Recompute
    adapters: float = 0.0
    frozen: float = 0.0

    def forward_by_part(self) -> dict[str, float]:
        """Return forward FLOPs per token under the name of each part; adapters if there are any."""
        return {
            **({"adapters": self.adapters} if self.adapters else {}),
            "attention_projections": self.attention_projections,
            "attention_scores_values": self.attention_scores_values,
            "mlp": self.mlp,
            "head": self.head,
            "output_projection": self.output_projection,
        }

    @property
    def forward(self) -> float:
        """FLOPs per token of one forward pass (what serving needs, where no adapters are left)."""
        return sum(self.forward_by_part().values())

    @property
    def backward(self) -> float:
        """FLOPs per token of one backward pass: twice the forward pass, once of frozen matrices."""
        return BACKWARD_PER_FORWARD * self.forward - self.frozen

    @property
    def recomputed(self) -> float:
        """FLOPs per token that the backward pass repeats."""
        if self.recompute == "none":
            return 0.0
        if self.recompute == "selective":
            return self.attention_scores_values
        return self.forward - self.head - self.output_projection

    @property
    def training(self) -> float:
        """Model FLOPs per trained token: forward and backward. Use it with MFU."""
        return self.forward + self.backward

    @property
    def training_hardware(self) -> float:
        """Hardware FLOPs per trained token: recomputation too. Use it with HFU."""
        return self.training + self.recomputed


def flops_per_token(
    shape: ModelShape,
    *,
    causal_half: bool = False,
    recompute: Recompute = "none",
    lora: LoraConfig | None = None,
) -> TokenFlops:
    """Count the matrix products of one token exactly, by part.

    Forward, per layer: 2·(2·d·w + 2·d·kv_dim) for the projections, w being the width of all query
    heads (d in most models), 4·T·w for scores and values
    (grouped-query attention saves none of it), 2·3·d·d_ff for swiglu or 2·2·d·d_ff for gelu; once:
    2·d·V for the logits (of a classifier 2·d·classes), and 2·d² for the dense layer of an encoder's
    head. An adapter from m to n features adds 2·rank·(m + n).

    Args:
        shape: The model.
        causal_half: Count only the half of the scores that a causal mask leaves, T/2 for T (the
            exact mean is (T+1)/2). PaLM and most published MFUs count all of them, so that is the
            default; kernels such as FlashAttention skip the masked half.
        recompute: Which activations the backward pass computes again.
        lora: Adapters that are trained beside frozen matrices; None where all is trained.

    Returns:
        FLOPs per token.

    Raises:
        ValueError: If ``causal_half`` is asked of a model without a causal mask.
    """
    check_recompute(recompute)
    if causal_half and not shape.causal:
        raise ValueError(
            "causal_half = True: expected False, as the shape has causal = False and every token "
            "attends to all others; leave causal_half out."
        )
    scores = scores_and_values_flops(1, shape.sequence_length, shape.score_features)
    projections, mlp, head, logits = (
        float(FLOPS_PER_MULTIPLY_ADD * products)
        for products in (
            shape.attention_products,
            shape.mlp_products,
            shape.head_products,
            shape.logit_products,
        )
    )
    adapters = frozen = 0.0
    if lora is not None:
        adapters = float(FLOPS_PER_MULTIPLY_ADD * lora.params(shape))
        frozen = projections + mlp + (0.0 if trains_head(shape) else head + logits)
    return TokenFlops(
        attention_projections=projections,
        attention_scores_values=scores / 2 if causal_half else scores,
        mlp=mlp,
        head=head,
        output_projection=logits,
        causal_half=causal_half,
        recompute=recompute,
        adapters=adapters,
        frozen=frozen,
    )


def run_flops(flops_per_token: float, tokens: float) -> float:
    """Multiply FLOPs per token by the tokens of a whole run.

    Args:
        flops_per_token: Training FLOPs per token, by whichever count.
        tokens: Tokens processed: every position of every step, repeated epochs and padding
            included, because the chip computes them all.

    Returns:
        FLOPs.
    """
    check_positive("flops_per_token", flops_per_token, "FLOPs per token")
    check_positive("tokens", tokens, "tokens", zero_ok=True)
    return float(flops_per_token * tokens)


def model_flops_utilization(
    *,
    tokens_per_second: float,
    flops_per_token: float,
    chips: int,
    peak_flops_per_second: float,
) -> float:
    """Divide observed tokens/s by the tokens/s of all chips at their peak: MFU.

    With hardware FLOPs per token (``TokenFlops.training_hardware``) the same ratio is HFU.

    Args:
        tokens_per_second: Observed throughput of all chips together.
        flops_per_token: Model FLOPs per trained token.
        chips: Number of chips.
        peak_flops_per_second: Dense peak of one chip in the precision used.

    Returns:
        A fraction (Chowdhery et al. 2022, appendix B). A value above 1 means a wrong input and is
        not hidden.
    """
    check_positive("tokens_per_second", tokens_per_second, "tokens per second")
    check_positive("flops_per_token", flops_per_token, "FLOPs per token")
    check_positive("chips", chips, "chips")
    check_positive("peak_flops_per_second", peak_flops_per_second, "FLOP/s")
    return tokens_per_second * flops_per_token / (chips * peak_flops_per_second)


def throughput(
    *, mfu: float, flops_per_token: float, chips: int, peak_flops_per_second: float
) -> float:
    """Return tokens/s of all chips at a given MFU; the inverse of ``model_flops_utilization``.

    Args:
        mfu: Model FLOPs utilization, a fraction (or HFU with hardware FLOPs per token).
        flops_per_token: Model FLOPs per trained token.
        chips: Number of chips.
        peak_flops_per_second: Dense peak of one chip in the precision used.

    Returns:
        Tokens per second.
    """
    check_fraction("mfu", mfu)
    check_positive("flops_per_token", flops_per_token, "FLOPs per token")
    check_positive("chips", chips, "chips")
    check_positive("peak_flops_per_second", peak_flops_per_second, "FLOP/s")
    return mfu * chips * peak_flops_per_second / flops_per_token
