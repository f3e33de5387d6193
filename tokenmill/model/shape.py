"""The shape of a Transformer, and its exact number of parameters by part.

Shared by the model that is trained and by the ledger that plans it, so that both count the same
thing. Standard library only: importing it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Positions = Literal["rope", "learned"]
Norm = Literal["layer", "rms"]
Mlp = Literal["gelu", "swiglu"]
NormPosition = Literal["pre", "post"]
Head = Literal["lm", "mlm", "classifier"]

_SIZES = ("layers", "d_model", "heads", "d_ff", "vocab_size", "sequence_length")
_CHOICES = {
    "positions": get_args(Positions),
    "norm": get_args(Norm),
    "mlp": get_args(Mlp),
    "norm_position": get_args(NormPosition),
    "head": get_args(Head),
}
_FLAGS = ("use_bias", "tie_embeddings", "causal")


# Queries of a causal row are cut into blocks of at least so many, each with the keys up to its end.
_MIN_QUERY_BLOCK, _MAX_QUERY_BLOCKS = 128, 8


def query_blocks(length: int) -> int:
    """Return the equal blocks of queries of a causal row of this length; 1 for all at once.

    A block sees no key after its end, so those products are left out.
    """
    blocks = max(1, min(_MAX_QUERY_BLOCKS, length // _MIN_QUERY_BLOCK))
    return 1 if length % blocks else blocks


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A Transformer with one stack of layers (a decoder, or an encoder if not causal).

    Attributes:
        layers: Number of Transformer layers.
        d_model: Width of the residual stream.
        heads: Number of query heads; each is ``d_model // heads`` wide.
        kv_heads: Number of key and value heads; None means ``heads``. Fewer is grouped-query
            attention (Ainslie et al. 2023), 1 is multi-query attention (Shazeer 2019).
        d_ff: Inner width of the MLP.
        vocab_size: Rows of the token embedding.
        sequence_length: Tokens in a training sequence (and rows of a learned position table).
        positions: ``rope`` has no parameters, ``learned`` a table.
        norm: ``layer`` has a scale and a bias, ``rms`` a scale only.
        use_bias: Whether the linear layers of attention and MLP have biases.
        mlp: ``gelu`` has two matrices, ``swiglu`` three (Shazeer 2020).
        tie_embeddings: Whether the output projection reuses the token embedding.
        causal: Whether a token attends to earlier tokens only.
        norm_position: ``pre``: norms before attention and MLP and one behind the last layer
            (GPT-2); ``post``: norms behind them and one behind the embeddings (BERT).
        type_vocab_size: Rows of a token type embedding; BERT has 2, 0 is none.
        head: ``lm``: the output projection alone; ``mlm``: BERT's dense layer, norm and an output
            bias before it; ``classifier``: BERT's pooler and a dense layer instead of it.
        classes: Classes of a classifier.
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

    def __post_init__(self) -> None:
        sizes = _SIZES if self.kv_heads is None else (*_SIZES, "kv_heads")
        for field in sizes:
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
        for field in _FLAGS:
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise ValueError(
                    f"model.{field} = {value!r}: expected true or false; write one of them."
                )
        for field, needed in (("type_vocab_size", 0), ("classes", 2 * (self.head == "classifier"))):
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

    def _check_heads(self) -> None:
        if self.d_model % self.heads:
            # A head of at least two features, and of an even number.
            fit = [n for n in range(1, self.d_model // 2 + 1) if self.d_model % (2 * n) == 0]
            near = sorted(sorted(fit, key=lambda n: abs(n - self.heads))[:2])
            such = " or ".join(f"--set model.heads={n}" for n in near) or "an even d_model"
            raise ValueError(
                f"model.heads = {self.heads}: expected a divisor of d_model = {self.d_model}, so "
                f"that every head is equally wide; choose {such}"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"model.kv_heads = {self.key_value_heads}: expected a divisor of heads = "
                f"{self.heads}; choose one, so that every key head serves as many query heads."
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(
                f"model.heads = {self.heads}: expected an even d_model / heads for "
                f"rope, which turns pairs of features, but it is {self.head_dim}; change heads "
                "or use positions = 'learned'."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head, in features."""
        return self.d_model // self.heads

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads, with the default filled in."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def kv_dim(self) -> int:
        """Width of all key (or all value) heads together, in features."""
        return self.key_value_heads * self.head_dim

    @property
    def mlp_inner_matrices(self) -> int:
        """Matrices from d_model to d_ff in an MLP: 1 for gelu, 2 (gate and value) for swiglu."""
        return 2 if self.mlp == "swiglu" else 1

    def params_by_part(self) -> dict[str, int]:
        """Count the parameters exactly.

        Per layer: attention has q and o of d*d, k and v of d*kv_dim; the MLP has its inner
        matrices and one of d_ff*d; with ``use_bias`` each has a bias as wide as its output. Norms:
        two a layer and one behind the last layer or the embeddings. The head of ``mlm`` is a dense
        layer d*d + d, a norm and a bias V, that of ``classifier`` a dense layer d*d + d (pooler)
        and one of d*classes + classes. The output projection is d*V, 0 when tied or classifying.

        Returns:
            Number of parameters under token_embedding, position_embedding, type_embedding,
            attention, mlp, norms, head and output_projection.
        """
        d, d_ff, kv = self.d_model, self.d_ff, self.kv_dim
        inner = self.mlp_inner_matrices
        types = self.type_vocab_size * d
        attention = 2 * d * d + 2 * d * kv
        mlp = (inner + 1) * d * d_ff
        if self.use_bias:
            attention += 2 * d + 2 * kv
            mlp += inner * d_ff + d
        norm = 2 * d if self.norm == "layer" else d
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
            "type_embedding": types,
            "attention": self.layers * attention,
            "mlp": self.layers * mlp,
            "norms": (2 * self.layers + 1) * norm,
            "head": head[self.head],
            "output_projection": embedding if projected else 0,
        }

    @property
    def attention_width(self) -> int:
        """Width of all query heads together, in features."""
        return self.heads * self.head_dim

    @property
    def active_d_ff(self) -> int:
        """Inner MLP width that one token passes, in features."""
        return self.d_ff

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
        """Multiply-adds per token of the MLPs of all layers."""
        return self.layers * (self.mlp_inner_matrices + 1) * self.d_model * self.d_ff

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
        """Non-embedding parameters and the output projection, tied or not.

        The N that 6·N should use for a count of matrix products: a look-up in the embedding costs
        no product, but the output projection does, even where it shares the embedding's matrix.
        """
        projection = 0 if self.head == "classifier" else self.vocab_size * self.d_model
        return self.params_non_embedding + projection
