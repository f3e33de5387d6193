"""The shape of a Transformer, and its exact number of parameters by part.

Shared by the model that is trained and by the ledger that plans it, so that both count the same
thing. Standard library only: importing it costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Positions = Literal["rope", "learned"]
Norm = Literal["layer", "rms"]
Mlp = Literal["gelu", "gelu_exact", "swiglu"]
RopeScaling = Literal["none", "linear", "llama3"]
NormPosition = Literal["pre", "post"]
Head = Literal["lm", "mlm", "classifier"]
Router = Literal["softmax", "sigmoid"]
Balance = Literal["auxiliary", "bias", "none"]

_SIZES = ("layers", "d_model", "heads", "d_ff", "vocab_size", "sequence_length")
_CHOICES = {
    "positions": get_args(Positions),
    "norm": get_args(Norm),
    "mlp": get_args(Mlp),
    "rope_scaling": get_args(RopeScaling),
    "norm_position": get_args(NormPosition),
    "head": get_args(Head),
    "router": get_args(Router),
    "balance": get_args(Balance),
}
_FLAGS = (
    "use_bias",
    "tie_embeddings",
    "causal",
    "qk_norm",
    "normalize_gates",
    "shared_expert_gate",
)
_POSITIVE_NUMBERS = (
    "rope_base",
    "rope_factor",
    "rope_low_frequency_factor",
    "rope_high_frequency_factor",
    "router_scale",
)
SELECTION_BIAS = "selection_bias"
"""Name of the bias of each expert's score in choosing, which no gradient trains (`balance`)."""

# Keys that say something only where there are experts, with the value of those that have none.
_EXPERT_KEYS = {
    "experts_per_token": 1,
    "shared_experts": 0,
    "expert_d_ff": None,
    "moe_every": 1,
    "first_dense_layers": 0,
    "router": "softmax",
    "normalize_gates": True,
    "router_scale": 1.0,
    "shared_expert_gate": False,
    "router_z_loss": 0.0,
}
EXPERT_KEYS = ("experts", *_EXPERT_KEYS, "balance", "balance_weight")
"""Fields that decide nothing in a dense model."""

# Of the auxiliary loss in the loss: Switch Transformer and OLMoE. Of one step of the bias:
# DeepSeek-V3.
_BALANCE_WEIGHTS = {"auxiliary": 0.01, "bias": 0.001, "none": 0.0}


# Queries of a causal row are cut into blocks of at least so many, each with the keys up to its end.
_MIN_QUERY_BLOCK, _MAX_QUERY_BLOCKS = 128, 8


def query_blocks(length: int) -> int:
    """Return the equal blocks of queries of a causal row of this length; 1 for all at once.

    A block sees no key after its end, so those products are left out.
    """
    blocks = max(1, min(_MAX_QUERY_BLOCKS, length // _MIN_QUERY_BLOCK))
    return 1 if length % blocks else blocks


def moe_pattern(layers: int, moe_layers: Collection[int]) -> tuple[int, int] | None:
    """Return the keys `moe_every` and `first_dense_layers` of the layers that have experts.

    Args:
        layers: How many layers there are.
        moe_layers: Numbers, from 0, of those with experts.

    Returns:
        The pair of the smallest numbers that says it; None if none does.
    """
    wanted = set(moe_layers)
    for first in range(layers):
        for every in range(1, layers - first + 1):
            if wanted == {i for i in range(first, layers) if (i - first + 1) % every == 0}:
                return every, first
    return None


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A Transformer with one stack of layers (a decoder, or an encoder if not causal).

    Attributes:
        layers: Number of Transformer layers.
        d_model: Width of the residual stream.
        heads: Number of query heads.
        kv_heads: Number of key and value heads; None means ``heads``. Fewer is grouped-query
            attention (Ainslie et al. 2023), 1 is multi-query attention (Shazeer 2019).
        d_ff: Inner width of the MLP.
        vocab_size: Rows of the token embedding.
        sequence_length: Tokens in a training sequence (and rows of a learned position table).
        positions: ``rope`` has no parameters, ``learned`` a table.
        norm: ``layer`` has a scale and a bias, ``rms`` a scale only.
        use_bias: Whether the linear layers of attention and MLP have biases.
        mlp: ``gelu`` (tanh form) and ``gelu_exact`` have two matrices, ``swiglu`` three (Shazeer
            2020). The dense layer of the head ``mlm`` has the same GELU.
        tie_embeddings: Whether the output projection reuses the token embedding.
        causal: Whether a token attends to earlier tokens only.
        norm_position: ``pre``: norms before attention and MLP and one behind the last layer
            (GPT-2); ``post``: norms behind them and one behind the embeddings (BERT).
        type_vocab_size: Rows of a token type embedding; BERT has 2, 0 is none.
        head: ``lm``: the output projection alone; ``mlm``: BERT's dense layer, norm and an output
            bias before it; ``classifier``: BERT's pooler and a dense layer instead of it.
        classes: Classes of a classifier.
        head_dim: Features of a head, as configured; None means ``d_model // heads``. ``head_width``
            is the number itself.
        qkv_bias: Whether the projections to q, k and v have biases; None means as ``use_bias``.
            Qwen 2 has them there alone.
        qk_norm: Whether each head of q and of k passes an RMS norm before it is rotated (Henry et
            al. 2020; Qwen 3). All heads of a layer share one scale for q and one for k.
        norm_epsilon: What a norm adds to the variance or mean square; None means 1e-6 for ``rms``,
            1e-5 for ``layer`` in a decoder and 1e-12 in an encoder.
        rope_base: Base of the angles: pair j of K features turns by
            ``position * rope_base ** (-2 * j / K)``.
        rope_scaling: How these frequencies are lowered for longer texts: ``none``; ``linear``:
            divided by ``rope_factor`` (Chen et al. 2023); ``llama3``: those whose wavelength is
            over ``rope_original_length / rope_low_frequency_factor`` divided, those under
            ``rope_original_length / rope_high_frequency_factor`` kept, between them both mixed.
        rope_factor: See ``rope_scaling``.
        rope_low_frequency_factor: See ``rope_scaling``.
        rope_high_frequency_factor: See ``rope_scaling``.
        rope_original_length: Tokens of the sequences before the scaling.
        experts: MLPs beside each other in a layer, of which a router chooses for each token
            (Shazeer et al. 2017); 1 is a dense model.
        experts_per_token: Experts that each token passes, besides those that are shared.
        shared_experts: Experts that every token passes besides (DeepSeekMoE, Dai et al. 2024);
            computed as one MLP of their common width.
        expert_d_ff: Inner width of one expert; None means ``d_ff``.
        moe_every: Every so many layers, counted behind ``first_dense_layers``, the last has
            experts; the others have one MLP of ``d_ff``.
        first_dense_layers: So many layers at the bottom have one MLP of ``d_ff``.
        router: What makes gates of the router's logits: a ``softmax`` over all experts, or a
            ``sigmoid`` of each (DeepSeek-V3).
        normalize_gates: Whether the gates of a token's experts are divided by their sum.
        router_scale: What the gates are multiplied by then.
        shared_expert_gate: Whether the shared experts' output is multiplied by the sigmoid of a
            projection of their input (Qwen 2 MoE).
        balance: What keeps experts equally busy: an ``auxiliary`` loss (Fedus et al. 2021), a
            ``bias`` on each expert's score in choosing, raised or lowered after every step (Wang
            et al. 2024), or ``none``.
        balance_weight: Factor of the auxiliary loss, or what a step adds to or takes from a bias;
            None means 0.01, or 0.001.
        router_z_loss: Factor of the mean squared log-partition of the router's logits in the loss
            (Zoph et al. 2022); 0 is none.
    """

    layers: int
    d_model: int
    heads: int
    d_ff: int
    vocab_size: int
    sequence_length: int
    positions: Positions
    norm: Norm
    use_bias: bool
    mlp: Mlp
    tie_embeddings: bool
    kv_heads: int | None = None
    causal: bool = True
    norm_position: NormPosition = "pre"
    type_vocab_size: int = 0
    head: Head = "lm"
    classes: int = 0
    head_dim: int | None = None
    qkv_bias: bool | None = None
    qk_norm: bool = False
    norm_epsilon: float | None = None
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling = "none"
    rope_factor: float = 1.0
    rope_low_frequency_factor: float = 1.0
    rope_high_frequency_factor: float = 4.0
    rope_original_length: int = 8192
    experts: int = 1
    experts_per_token: int = 1
    shared_experts: int = 0
    expert_d_ff: int | None = None
    moe_every: int = 1
    first_dense_layers: int = 0
    router: Router = "softmax"
    normalize_gates: bool = True
    router_scale: float = 1.0
    shared_expert_gate: bool = False
    balance: Balance = "auxiliary"
    balance_weight: float | None = None
    router_z_loss: float = 0.0

    def __post_init__(self) -> None:
        names = ("kv_heads", "head_dim", "expert_d_ff")
        optional = [f for f in names if getattr(self, f) is not None]
        sizes = (*_SIZES, "rope_original_length", "experts", "experts_per_token", "moe_every")
        for field in (*sizes, *optional):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"model.{field} = {value!r}: expected a whole number of at least 1; "
                    "correct it in the model section of the configuration."
                )
        for field, allowed in _CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(
                    f"model.{field} = {value!r}: expected one of {', '.join(allowed)}; "
                    "choose one of them."
                )
        for field in _FLAGS if self.qkv_bias is None else (*_FLAGS, "qkv_bias"):
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise ValueError(
                    f"model.{field} = {value!r}: expected true or false; write one of them."
                )
        for field, needed in (
            ("type_vocab_size", 0),
            ("classes", 2 * (self.head == "classifier")),
            ("shared_experts", 0),
            ("first_dense_layers", 0),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < needed:
                raise ValueError(
                    f"model.{field} = {value!r}: expected a whole number of at least "
                    f"{needed}; correct it in the model section of the configuration."
                )
        if self.causal and self.head != "lm":
            raise ValueError(
                f"model.head = {self.head!r}: expected 'lm' for a causal model; "
                "choose it, or causal = false."
            )
        self._check_heads()
        self._check_numbers()
        self._check_experts()

    def _check_experts(self) -> None:
        for field in ("router_z_loss", "balance_weight"):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (value is None and field == "balance_weight") and not (
                number and math.isfinite(value) and value >= 0
            ):
                raise ValueError(
                    f"model.{field} = {value!r}: expected a number of at least 0; "
                    "correct it in the model section of the configuration."
                )
        if self.experts_per_token > self.experts:
            raise ValueError(
                f"model.experts_per_token = {self.experts_per_token}: expected at most "
                f"experts = {self.experts}; a token cannot pass more experts than there are."
            )
        if self.experts == 1:
            of_balance = {"balance": "auxiliary", "balance_weight": None}
            for field, without in (_EXPERT_KEYS | of_balance).items():
                value = getattr(self, field)
                if value != without:
                    raise ValueError(
                        f"model.{field} = {value!r}: expected {without!r} where experts = 1, as "
                        "a dense model has no router; set model.experts to 2 or more, or leave "
                        "it out."
                    )
            return
        if not self.moe_layers:
            raise ValueError(
                f"model.first_dense_layers = {self.first_dense_layers}, model.moe_every = "
                f"{self.moe_every}: expected that one of the {self.layers} layers has experts; "
                "lower one of them, or leave out model.experts."
            )
        if self.shared_expert_gate and not self.shared_experts:
            raise ValueError(
                "model.shared_expert_gate = True: expected False where shared_experts = 0; set "
                "model.shared_experts, or leave it out."
            )

    def _check_numbers(self) -> None:
        epsilon = [] if self.norm_epsilon is None else ["norm_epsilon"]
        for field in (*_POSITIVE_NUMBERS, *epsilon):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise ValueError(
                    f"model.{field} = {value!r}: expected a number above 0; "
                    "correct it in the model section of the configuration."
                )
        if self.rope_scaling == "none" and self.rope_factor != 1:
            raise ValueError(
                f"model.rope_factor = {self.rope_factor}: expected 1 where rope_scaling = 'none'; "
                "choose linear or llama3, or leave it out."
            )
        if self.rope_scaling != "none" and self.positions != "rope":
            raise ValueError(
                f"model.rope_scaling = {self.rope_scaling!r}: expected 'none' where positions = "
                f"{self.positions!r}; choose positions = 'rope', or leave it out."
            )
        if self.rope_factor < 1:
            raise ValueError(
                f"model.rope_factor = {self.rope_factor}: expected at least 1, by which "
                "frequencies are divided; correct it in the model section of the configuration."
            )
        low, high = self.rope_low_frequency_factor, self.rope_high_frequency_factor
        if self.rope_scaling == "llama3" and low >= high:
            raise ValueError(
                f"model.rope_low_frequency_factor = {low}: expected less than "
                f"rope_high_frequency_factor = {high}; correct one of them."
            )

    def _check_heads(self) -> None:
        if self.head_dim is None and self.d_model % self.heads:
            # A head of at least two features, and of an even number.
            fit = [n for n in range(1, self.d_model // 2 + 1) if self.d_model % (2 * n) == 0]
            near = sorted(sorted(fit, key=lambda n: abs(n - self.heads))[:2])
            such = " or ".join(f"--set model.heads={n}" for n in near) or "an even d_model"
            raise ValueError(
                f"model.heads = {self.heads}: expected a divisor of d_model = {self.d_model}, so "
                f"that every head is equally wide; choose {such}, or set head_dim"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"model.kv_heads = {self.key_value_heads}: expected a divisor of heads = "
                f"{self.heads}; choose one, so that every key head serves as many query heads."
            )
        if self.positions == "rope" and self.head_width % 2:
            if self.head_dim is not None:
                raise ValueError(
                    f"model.head_dim = {self.head_dim}: expected an even number for rope, which "
                    "turns pairs of features; change it or use positions = 'learned'."
                )
            raise ValueError(
                f"model.heads = {self.heads}: expected an even d_model / heads for "
                f"rope, which turns pairs of features, but it is {self.head_width}; change heads "
                "or use positions = 'learned'."
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head, in features."""
        return self.d_model // self.heads if self.head_dim is None else self.head_dim

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads, with the default filled in."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def kv_dim(self) -> int:
        """Width of all key (or all value) heads together, in features."""
        return self.key_value_heads * self.head_width

    @property
    def mlp_inner_matrices(self) -> int:
        """Matrices from d_model to d_ff in an MLP: 1 for gelu, 2 (gate and value) for swiglu."""
        return 2 if self.mlp == "swiglu" else 1

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the projections to q, k and v have biases, with the default filled in."""
        return self.use_bias if self.qkv_bias is None else self.qkv_bias

    @property
    def epsilon(self) -> float:
        """What the norms add to the variance or mean square, with the default filled in."""
        if self.norm_epsilon is not None:
            return self.norm_epsilon
        if self.norm == "rms":
            return 1e-6  # Llama 1
        return 1e-5 if self.causal else 1e-12  # GPT-2, BERT

    @property
    def attention_params(self) -> int:
        """Parameters of one attention: q and o of d*H*K each, k and v of d*kv_dim, and biases."""
        width = self.attention_width
        params = 2 * self.d_model * (width + self.kv_dim)
        params += width + 2 * self.kv_dim if self.has_qkv_bias else 0
        return params + (self.d_model if self.use_bias else 0)

    @property
    def mlp_params(self) -> int:
        """Parameters of one MLP of d_ff: its inner matrices, one of d_ff*d, and biases."""
        return self._mlp_params_of(self.d_ff)

    @property
    def expert_width(self) -> int:
        """Inner width of one expert, with the default filled in."""
        return self.d_ff if self.expert_d_ff is None else self.expert_d_ff

    @property
    def balance_step(self) -> float:
        """Factor of the auxiliary loss, or a step of the bias, with the default filled in."""
        given = self.balance_weight
        return _BALANCE_WEIGHTS[self.balance] if given is None else given

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers, from 0, of the layers that have experts; none in a dense model."""
        if self.experts == 1:
            return ()
        above = range(self.first_dense_layers, self.layers)
        return tuple(i for i in above if (i - self.first_dense_layers + 1) % self.moe_every == 0)

    def resized(self, *, layers: int, d_ff: int, **sizes: Any) -> ModelShape:
        """Return the shape with other sizes, its experts in the same proportions.

        Args:
            layers: Layers; at least one of them has experts where there are any.
            d_ff: Inner width of the MLP; that of an expert changes by the same factor.
            sizes: Further fields, such as d_model.
        """
        if self.experts > 1:
            if self.expert_d_ff is not None:
                sizes["expert_d_ff"] = max(8, round(self.expert_d_ff * d_ff / self.d_ff / 8) * 8)
            first = min(round(self.first_dense_layers * layers / self.layers), layers - 1)
            sizes["first_dense_layers"] = first
            sizes["moe_every"] = min(self.moe_every, layers - first)
        return replace(self, layers=layers, d_ff=d_ff, **sizes)

    @property
    def moe_share(self) -> float:
        """Share of the layers that have experts."""
        return len(self.moe_layers) / self.layers

    def _mlp_params_of(self, width: int) -> int:
        """Count the parameters of an MLP of another inner width."""
        inner = self.mlp_inner_matrices
        params = (inner + 1) * self.d_model * width
        return params + (inner * width + self.d_model if self.use_bias else 0)

    @property
    def expert_params(self) -> int:
        """Parameters of one expert."""
        return self._mlp_params_of(self.expert_width)

    @property
    def router_params(self) -> int:
        """Parameters of a layer's router: a matrix d*experts, and the biases of balance = bias."""
        if self.experts == 1:
            return 0
        return self.d_model * self.experts + (self.experts if self.balance == "bias" else 0)

    @property
    def shared_params(self) -> int:
        """Parameters of a layer's shared experts and of their gate."""
        if not self.shared_experts:
            return 0
        gate = self.d_model if self.shared_expert_gate else 0
        return self._mlp_params_of(self.shared_experts * self.expert_width) + gate

    def moe_layer_params(self, experts: int) -> int:
        """Count what a layer of experts has in the place of the MLP, with so many of them."""
        return experts * self.expert_params + self.router_params + self.shared_params

    @property
    def norm_params(self) -> int:
        """Parameters of one norm of the residual stream."""
        return 2 * self.d_model if self.norm == "layer" else self.d_model

    @property
    def qk_norm_params(self) -> int:
        """Parameters of one attention's norms of q and k: a scale for each."""
        return 2 * self.head_width if self.qk_norm else 0

    def backbone(self) -> dict[str, Any]:
        """Return all that decides the layers' computation, by key, with defaults filled in.

        Two models whose backbones are equal can have each other's weights, but for the head and,
        where positions are learned, for the length of their table.
        """
        names = ["layers", "d_model", "heads", "d_ff", "positions", "norm", "mlp"]
        names += ["use_bias", "qk_norm", "norm_position", "type_vocab_size", "vocab_size"]
        if self.positions == "rope":
            names += ["rope_base", "rope_scaling", "rope_factor"]
        if self.rope_scaling == "llama3":
            names += ["rope_low_frequency_factor", "rope_high_frequency_factor"]
            names += ["rope_original_length"]
        experts: dict[str, Any] = {"experts": self.experts}
        if self.experts > 1:
            # Not those of training alone; but the bias of balance is a weight.
            experts |= {name: getattr(self, name) for name in _EXPERT_KEYS}
            del experts["router_z_loss"]
            experts["expert_d_ff"] = self.expert_width
            experts["balance"] = "bias" if self.balance == "bias" else "auxiliary"
            pattern = moe_pattern(self.layers, self.moe_layers)
            assert pattern is not None
            experts["moe_every"], experts["first_dense_layers"] = pattern
            if self.moe_share == 1:  # no MLP has it
                experts["d_ff"] = self.expert_width
        return {
            **{name: getattr(self, name) for name in names},
            "norm_epsilon": self.epsilon,
            "kv_heads": self.key_value_heads,
            "head_dim": self.head_width,
            "qkv_bias": self.has_qkv_bias,
            **experts,
        }

    def params_by_part(self) -> dict[str, int]:
        """Count the parameters exactly.

        Per layer: attention has q and o of d*H*K, k and v of d*kv_dim; the MLP has its inner
        matrices and one of d_ff*d; each has a bias as wide as its output where ``use_bias`` and
        ``qkv_bias`` say so; a layer of experts has all of them, and their router, in the MLP's
        place. Norms: two a layer and one behind the last layer or the embeddings;
        ``qk_norm`` adds 2*K a layer. The head of ``mlm`` is a dense layer d*d + d, a norm and a
        bias V, that of ``classifier`` a dense layer d*d + d (pooler) and one of d*classes +
        classes. The output projection is d*V, 0 when tied or classifying.

        Returns:
            Number of parameters under token_embedding, position_embedding, type_embedding,
            attention, mlp, norms, head and output_projection.
        """
        d, norm = self.d_model, self.norm_params
        embedding = self.vocab_size * d
        head = {
            "lm": 0,
            "mlm": d * d + d + norm + self.vocab_size,
            "classifier": d * d + d + d * self.classes + self.classes,
        }
        projected = not self.tie_embeddings and self.head != "classifier"
        return {
            "token_embedding": embedding,
            "position_embedding": self.sequence_length * d if self.positions == "learned" else 0,
            "type_embedding": self.type_vocab_size * d,
            "attention": self.layers * self.attention_params,
            "mlp": self._mlps_params(self.experts),
            "norms": (2 * self.layers + 1) * norm + self.layers * self.qk_norm_params,
            "head": head[self.head],
            "output_projection": embedding if projected else 0,
        }

    def _mlps_params(self, experts: int) -> int:
        """Count the parameters of all MLPs, with so many experts in each layer that has some."""
        sparse = len(self.moe_layers)
        dense = (self.layers - sparse) * self.mlp_params
        return dense + (sparse * self.moe_layer_params(experts) if sparse else 0)

    @property
    def params_idle(self) -> int:
        """Parameters of the experts that a token is not sent to."""
        return self._mlps_params(self.experts) - self._mlps_params(self.experts_per_token)

    @property
    def params_active(self) -> int:
        """Parameters that a token passes: all but the experts it is not sent to."""
        return self.params_total - self.params_idle

    @property
    def is_sparse(self) -> bool:
        """Whether a token passes a part of the parameters only."""
        return self.params_idle > 0

    def active_params_by_part(self) -> dict[str, int]:
        """Count the parameters that a token passes, under the parts of `params_by_part`."""
        parts = self.params_by_part()
        return {**parts, "mlp": parts["mlp"] - self.params_idle}

    @property
    def attention_width(self) -> int:
        """Width of all query heads together, in features."""
        return self.heads * self.head_width

    @property
    def dense_d_ff(self) -> int:
        """Inner MLP width of what every token passes: no routed experts; the mean of the layers."""
        passed = self.shared_experts * self.expert_width
        return round(self.d_ff + self.moe_share * (passed - self.d_ff))

    @property
    def attention_products(self) -> float:
        """Multiply-adds per token of the q, k, v and o projections of all layers."""
        return self.layers * 2 * self.d_model * (self.attention_width + self.kv_dim)

    @property
    def score_features(self) -> float:
        """Query features that meet each attended token, over all layers: L·H·Q."""
        return self.layers * self.attention_width

    @property
    def mlp_products(self) -> float:
        """Multiply-adds per token of the MLPs of all layers: of experts, those that it passes.

        Router and gate of the shared experts count, too.
        """
        matrices, sparse = self.mlp_inner_matrices + 1, len(self.moe_layers)
        products = (self.layers - sparse) * matrices * self.d_model * self.d_ff
        if sparse:
            width = (self.experts_per_token + self.shared_experts) * self.expert_width
            outputs = matrices * width + self.experts + (1 if self.shared_expert_gate else 0)
            products += sparse * self.d_model * outputs
        return products

    @property
    def logit_width(self) -> int:
        """Logits of a token: the vocabulary, or a classifier's classes."""
        return self.classes if self.head == "classifier" else self.vocab_size

    @property
    def logit_products(self) -> float:
        """Multiply-adds per token of the output projection, or of a classifier's last layer.

        The trainer computes both at every position (tokenmill/model/losses.py).
        """
        return self.d_model * self.logit_width

    @property
    def head_products(self) -> float:
        """Multiply-adds per token of the dense layer before it: BERT's, d*d; none in a decoder."""
        return 0 if self.head == "lm" else self.d_model * self.d_model

    @property
    def params_total(self) -> int:
        """All trainable parameters, a tied matrix counted once."""
        return sum(self.params_by_part().values())

    @property
    def params_non_embedding(self) -> int:
        """Parameters of the layers, norms and head only.

        The N of Kaplan et al. 2020 (sec. 1.3): no token or position embedding, no output
        projection.
        """
        parts = self.params_by_part()
        return parts["attention"] + parts["mlp"] + parts["norms"] + parts["head"]

    @property
    def params_in_products(self) -> int:
        """Non-embedding parameters that a token passes and the output projection, tied or not.

        The N that 6·N should use for a count of matrix products: a look-up in the embedding costs
        no product, but the output projection does, even where it shares the embedding's matrix.
        """
        projection = 0 if self.head == "classifier" else self.vocab_size * self.d_model
        return self.params_non_embedding - self.params_idle + projection
