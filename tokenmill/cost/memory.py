"""Memory of training on one chip, by part.

Data parallelism is assumed: every chip holds all weights, gradients and moments, and its own
share of the batch. Gradients and the two moments of AdamW are float32 whatever the weights are.
That is 18 bytes a parameter in mixed precision, against the 16 of Rajbhandari et al. 2020 ("ZeRO",
sec. 3.1), whose gradients are 16-bit. Mixed precision therefore saves activations and time, never
weights.

With LoRA the weights are frozen but for adapters and a classifier's head: only these have
gradients and moments. A frozen matrix needs its input for no gradient: it is kept only for an
adapter.

Activations are those that XLA was measured to hold, which differ by the kind of chip. On a CPU the
memory is that of the whole process, libraries and compiler included: activations in float32
whatever the precision, and hardly fewer of them with recomputation (docs/models.md). On
accelerators the estimate is of tensors, more of them than the paper's list has: see
`xla_layer_activations`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from tokenmill.cost.checks import check_positive
from tokenmill.cost.flops import Recompute, check_recompute
from tokenmill.model.expert_blocks import padded_rows
from tokenmill.model.lora import LoraConfig, head_params
from tokenmill.model.shape import ModelShape, query_blocks

if TYPE_CHECKING:
    from data.catalog.chips import Chip

Precision = Literal["float32", "bfloat16", "mixed_bfloat16", "mixed_float16"]
"""``mixed_*`` computes in 16 bits and keeps float32 weights; ``bfloat16`` keeps vectors only (norm
scales and biases, some 0.1 % of the weights, which are counted as if they were 16-bit)."""

_FLOAT32_BYTES = 4  # of a gradient, and of a moment
# Bytes of one stored weight, and of the 16-bit copy that mixed precision computes with.
_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "mixed_bfloat16": 4, "mixed_float16": 4}
_COPY_BYTES = {"float32": 0, "bfloat16": 0, "mixed_bfloat16": 2, "mixed_float16": 2}
_ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2, "mixed_bfloat16": 2, "mixed_float16": 2}
_ADAPTER_BYTES = 4  # of a weight of an adapter, in every precision
_MASK_BYTES = 1  # a dropout mask is a boolean
ADAMW_MOMENTS = 2  # mean and uncentred variance (Loshchilov and Hutter 2019)
# The loss needs float32 logits and a gradient of the same size, of a chunk of positions at a time:
# tokenmill/model/losses.py, whose numbers these are (a test compares them). Without chunks
# it would be Korthikanti et al. 2022, sec. 4.3: 4·s·b·v, twice.
LOGIT_BYTES = 4 + 4
LOGIT_CHUNK_LEAST_POSITIONS, LOGIT_CHUNKS_MOST = 512, 16
# The loss's gradient by the features waits for the backward pass in float32.
_FEATURE_GRADIENT_BYTES = 4
# Of a process that trains on a CPU, measured: TensorFlow and all that comes with it; compiling a
# training step, whose memory the steps then use; what steps take beside their tensors.
_CPU_LIBRARY_BYTES, _CPU_COMPILER_BYTES, _CPU_STEP_BYTES = 740 * 2**20, 750 * 2**20, 60 * 2**20
# The same where experts are spread, so that each layer's attention is a program of its own: what
# compiling took is not used again by the steps, whose tensors TensorFlow allocates itself. Measured
# on 10 to 69 million parameters, four and eight layers (benchmarks/training, 2026-11-30).
CPU_ISLANDS_PROCESS_BYTES = _CPU_LIBRARY_BYTES + 680 * 2**20
# Of a frozen weight beside the stored one, in every precision: measured, the cause not known.
_CPU_FROZEN_COPY_BYTES = 4
# Share of the activations that XLA on a CPU keeps all the same where they shall be computed again.
_CPU_KEPT_SHARE = 0.8
# Our margin for the allocator, the runtime and the compiler's scratch space; not a measurement.
RESERVED_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes that training needs on one chip.

    Attributes:
        weights: Stored weights that are trained.
        compute_copy: 16-bit copy of the weights in mixed precision; on a CPU what XLA holds of
            frozen weights beside them.
        gradients: One gradient a weight; on a CPU one of each part computed side by side.
        optimizer: Both moments of AdamW.
        activations: What the forward pass keeps for the backward pass, but for attention's part.
        attention: Of it attention's probabilities and, on an accelerator, the copies of keys and
            values for each block of queries; fused attention would hold nothing of it.
        recompute_workspace: One layer's activations, while the backward pass repeats them.
        logits: Logits and their gradient in float32, of one chunk (of each part computed side by
            side), and the gradient of all positions' last features; on an accelerator also the
            logits of all positions, in the type that computes.
        process: On a CPU, libraries, and what compiling takes beyond the tensors.
        frozen_weights: Stored weights that are not trained (LoRA).
    """

    weights: int
    compute_copy: int
    gradients: int
    optimizer: int
    activations: int
    attention: int
    recompute_workspace: int
    logits: int
    process: int = 0
    frozen_weights: int = 0

    def by_part(self) -> dict[str, int]:
        """Return the bytes under the name of each part."""
        return {
            "weights": self.weights,
            "frozen_weights": self.frozen_weights,
            "compute_copy": self.compute_copy,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "attention": self.attention,
            "recompute_workspace": self.recompute_workspace,
            "logits": self.logits,
            "process": self.process,
        }

    @property
    def total(self) -> int:
        """Bytes of all parts, as if all peaked together."""
        return sum(self.by_part().values())

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint: trained weights and moments.

        They are copied to the memory of the chief's machine, where the copy stays until a thread
        has written it; training goes on meanwhile. On a CPU that is the same memory, and the total
        is without it.
        """
        return self.weights + self.optimizer

    def fits(self, chip: Chip, reserved_share: float = RESERVED_SHARE) -> bool:
        """Say whether training fits one chip.

        Args:
            chip: A chip of the catalog.
            reserved_share: Share of its memory that tensors cannot have.

        Returns:
            Whether the total is at most what is left.

        Raises:
            ValueError: If the chip's memory is unknown, or the share is not in [0, 1).
        """
        if chip.memory_bytes is None:
            raise ValueError(
                f"memory_bytes of {chip.slug} = None: expected bytes, but the catalog has none "
                "for it; compare MemoryEstimate.total with the machine's own memory."
            )
        if not 0 <= reserved_share < 1:
            raise ValueError(
                f"reserved_share = {reserved_share!r}: expected 0 or more and less than 1; write "
                "10 % as 0.1."
            )
        return self.total <= chip.memory_bytes * (1 - reserved_share)


def share_of_batch(global_batch_size: int, devices: int, accumulation_steps: int = 1) -> int:
    """Return the sequences that a device holds at a time: its share of the batch, in equal parts.

    Args:
        global_batch_size: Sequences a step, over all devices.
        devices: Copies of the model.
        accumulation_steps: Parts that a step is computed in, one after the other.

    Returns:
        Sequences, rounded up; at least one.
    """
    return max(1, -(-global_batch_size // (devices * accumulation_steps)))


def logit_chunk_positions(positions: int) -> int:
    """Return the positions whose logits are in memory at once: a sixteenth, or 512 if more.

    Args:
        positions: Of one device in one step.
    """
    chunk = max(LOGIT_CHUNK_LEAST_POSITIONS, -(-positions // LOGIT_CHUNKS_MOST))
    return min(positions, chunk)


def check_precision(precision: str) -> None:
    """Raise unless the name of a precision is known.

    Args:
        precision: The name.

    Raises:
        ValueError: If it is unknown.
    """
    allowed = get_args(Precision)
    if precision not in allowed:
        raise ValueError(
            f"precision = {precision!r}: expected one of {', '.join(allowed)}; choose one of them."
        )


class LayerActivations(NamedTuple):
    """Bytes that one layer's forward pass keeps for its backward pass.

    Attributes:
        features: Of all but attention's products.
        attention: Of attention's probabilities, and copies of keys and values for them.
    """

    features: int
    attention: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.features + self.attention


def layer_activations(
    shape: ModelShape,
    *,
    batch: int,
    precision: Precision,
    recompute: Recompute = "none",
    dropout: bool = True,
    lora: LoraConfig | None = None,
    parts: int = 1,
) -> LayerActivations:
    """Count the bytes that one layer keeps, by the published list of tensors.

    For a 16-bit GPT layer (d_ff = 4·h, all heads, dropout) this is s·b·h·(34 + 5·a·s/h) of
    Korthikanti et al. 2022, eq. 1, and 34·s·b·h with selective recomputation (eq. 6 at t = 1),
    2·s·b·h with full recomputation (sec. 5). Other shapes follow the same list of tensors.

    Args:
        shape: The model: s = sequence_length, h = d_model, a = heads.
        batch: b, sequences on this chip in one step.
        precision: Of the computation.
        recompute: ``selective`` keeps no attention scores, ``full`` only the layer's input.
        dropout: Whether the layer has dropout, whose masks and outputs are kept too.
        lora: Adapters beside frozen matrices; None where all is trained.
        parts: Parts of the batch that are computed side by side, each with blocks of its own for
            experts.

    Returns:
        Bytes.
    """
    # gelu keeps its input and output; swiglu gate, value, silu(gate) and their product.
    size, positions = _check_layer(shape, batch, precision, recompute)
    inner = 4 if shape.mlp == "swiglu" else 2
    features = _feature_bytes(shape, positions, size, inner, 2 * shape.kv_dim, dropout, lora, parts)
    if recompute == "full":
        return LayerActivations(size * positions * shape.d_model, 0)
    if recompute == "selective":
        return LayerActivations(features, 0)
    # Softmax output; with dropout its mask and its result besides.
    per_score = 2 * size + _MASK_BYTES if dropout else size
    return LayerActivations(features, positions * shape.heads * shape.sequence_length * per_score)


def xla_layer_activations(
    shape: ModelShape,
    *,
    batch: int,
    precision: Precision,
    recompute: Recompute = "none",
    dropout: bool = True,
    lora: LoraConfig | None = None,
    parts: int = 1,
) -> LayerActivations:
    """Count the bytes that one layer of the Trainer keeps as XLA compiles it for an accelerator.

    What was alive at the peak of a training on an H200 (benchmarks/gpu, 2026-11-29) tells the
    tensors: probabilities in float32 and, computing in 16 bits, once more in these, for the blocks
    of queries up to their end; for each of those blocks a copy of its keys and values; three
    tensors of d_ff of a GELU. With it six measured peaks, without dropout and recomputation, are
    within 8 %. Reckoned, not measured: dropout (which computes all T x T scores at once), SwiGLU,
    grouped heads, encoders and recomputation.

    Args:
        shape: The model.
        batch: Sequences on this chip in one step.
        precision: Of the computation.
        recompute: ``selective`` keeps nothing of attention's products, ``full`` only the input.
        dropout: Whether the layer has dropout.
        lora: Adapters beside frozen matrices; None where all is trained.
        parts: Parts of the batch that are computed side by side, each with blocks of its own for
            experts.

    Returns:
        Bytes.
    """
    size, positions = _check_layer(shape, batch, precision, recompute)
    inner = 4 if shape.mlp == "swiglu" else 3
    if recompute == "full":
        return LayerActivations(size * positions * shape.d_model, 0)
    if recompute == "selective":
        keys = 2 * shape.kv_dim
        features = _feature_bytes(shape, positions, size, inner, keys, dropout, lora, parts)
        return LayerActivations(features, 0)
    features = _feature_bytes(shape, positions, size, inner, 0, dropout, lora, parts)
    length = shape.sequence_length
    blocks = query_blocks(length) if shape.causal and not dropout else 1
    # Of keys and values, repeated for every query head, a block has 1/blocks, 2/blocks, .. 1.
    copies = (blocks + 1) / 2
    copied = int(size * positions * 2 * shape.attention_width * copies)
    per_score = _FLOAT32_BYTES
    if dropout or size != _FLOAT32_BYTES:
        per_score += size
    if dropout:
        per_score += _MASK_BYTES
    scores = int(positions * shape.heads * length * per_score * copies / blocks)
    return LayerActivations(features, copied + scores)


def _check_layer(
    shape: ModelShape, batch: int, precision: Precision, recompute: Recompute
) -> tuple[int, int]:
    """Check what a layer is asked with; return bytes of a number, and positions."""
    check_positive("batch", batch, "sequences")
    check_precision(precision)
    check_recompute(recompute)
    return _ACTIVATION_BYTES[precision], shape.sequence_length * batch


def _feature_bytes(
    shape: ModelShape,
    positions: int,
    size: int,
    inner: int,
    keys: int,
    dropout: bool,
    lora: LoraConfig | None,
    parts: int,
) -> int:
    """Count a layer's bytes but for attention's products.

    Args:
        shape: The model.
        positions: Of the device.
        size: Bytes of a number.
        inner: Tensors of d_ff that the MLP keeps.
        keys: Features of keys and values that are kept here.
        dropout: Whether there are masks after attention and after the MLP.
        lora: Adapters; None where all is trained.
        parts: Parts of the batch that are computed side by side.
    """
    d, width = shape.d_model, shape.attention_width
    # Inputs of two norms, of q/k/v and of the MLP: 4·d; of o, and q: as wide as all query heads
    # (d in most models).
    features = 4 * d + 2 * width + keys
    if shape.qk_norm:  # inputs of the norms of q and k
        features += width + shape.kv_dim
    features += inner * shape.dense_d_ff
    if lora is not None:
        features += _features_of_adapters(shape, lora)
    masks = 2 * d if dropout else 0
    if lora is not None and lora.dropout:
        masks += _inputs_of_adapters(shape, lora)
    of_experts = size * _features_of_experts(shape, positions, parts)
    return positions * (size * features + _MASK_BYTES * masks) + of_experts


def _features_of_experts(shape: ModelShape, positions: int, parts: int) -> int:
    """Count the numbers that the experts of a layer keep, the mean of all layers.

    Of each row of a block, padding included, the input and what the inner matrices compute (the
    backward pass repeats the activation function); of each token the outputs of its experts, which
    the gradients of their gates need.
    """
    if shape.experts == 1:
        return 0
    assignments = -(-positions // parts) * shape.experts_per_token
    rows = parts * padded_rows(assignments, shape.experts)
    row = shape.d_model + shape.mlp_inner_matrices * shape.expert_width
    outputs = positions * shape.experts_per_token * shape.d_model
    return round(shape.moe_share * (rows * row + outputs))


def kv_cache_bytes(shape: ModelShape, *, tokens: int, bytes_per_number: int = 4) -> int:
    """Return the memory of keys and values of a text that is continued, in bytes.

    2·layers·kv_dim numbers a token (Pope et al. 2022, sec. 3.3), float32 in a pushed model.

    Args:
        shape: The model.
        tokens: Of the text, prompt and answer.
        bytes_per_number: 2 where the cache has 16 bits.
    """
    return 2 * shape.layers * shape.kv_dim * bytes_per_number * tokens


def _features_of_adapters(shape: ModelShape, lora: LoraConfig) -> int:
    """Count what adapters of a layer keep of a position, less the inputs of matrices without.

    With dropout each adapter keeps an input of its own, and nobody the one before it.
    """
    adapted = lora.adapted(shape)
    inputs = (
        ({"q", "k", "v"}, shape.d_model),
        ({"o"}, shape.attention_width),
        ({"gate", "up"}, shape.d_model),
        ({"down"}, shape.dense_d_ff),
    )
    read = set() if lora.dropout else set(adapted)
    unused = sum(features for targets, features in inputs if not targets & read)
    dropped = _inputs_of_adapters(shape, lora) if lora.dropout else 0
    return lora.rank * len(adapted) + dropped - unused


def _inputs_of_adapters(shape: ModelShape, lora: LoraConfig) -> int:
    return sum(inputs for inputs, _ in lora.adapted(shape).values())


def estimate_memory(
    shape: ModelShape,
    *,
    batch_per_device: int,
    precision: Precision,
    recompute: Recompute = "none",
    dropout: bool = True,
    parallelism: int = 1,
    on_cpu: bool = False,
    lora: LoraConfig | None = None,
) -> MemoryEstimate:
    """Estimate the memory of training with AdamW on one chip, by part.

    Args:
        shape: The model.
        batch_per_device: Sequences of ``shape.sequence_length`` on one chip in one step (of one
            micro-batch, where gradients are accumulated).
        precision: Of weights and computation.
        recompute: Which activations the backward pass computes again.
        dropout: Whether the layers have dropout.
        parallelism: Parts of the batch that are computed side by side, at most; CPU_PARALLELISM on
            a CPU.
        on_cpu: Whether the chip is a CPU, whose memory holds the whole process.
        lora: Adapters beside frozen matrices; None where all is trained.

    Returns:
        Bytes by part.
    """
    parallelism = min(parallelism, batch_per_device)

    stored: Precision = "float32" if on_cpu else precision
    counted = layer_activations if on_cpu else xla_layer_activations

    def layer(scheme: Recompute) -> LayerActivations:
        return counted(
            shape,
            batch=batch_per_device,
            precision=stored,
            recompute=scheme,
            dropout=dropout,
            lora=lora,
            parts=parallelism,
        )

    kept = layer(recompute)
    if on_cpu and recompute != "none":
        kept = LayerActivations(*(int(_CPU_KEPT_SHARE * part) for part in layer("none")))
    params = trained = shape.params_total
    weights, frozen_weights = params * _WEIGHT_BYTES[precision], 0
    if lora is not None:
        head, adapters = head_params(shape), lora.params(shape)
        frozen_weights = (params - head) * _WEIGHT_BYTES[precision]
        params, trained = params + adapters, head + adapters
        weights = head * _WEIGHT_BYTES[precision] + adapters * _ADAPTER_BYTES
    positions = shape.sequence_length * batch_per_device
    # Outside the layers: embedding dropout mask, inputs of final norm and output projection
    # (Korthikanti et al. 2022, sec. 4.3).
    outside = 2 * _ACTIVATION_BYTES[stored] + (_MASK_BYTES if dropout else 0)
    estimate = MemoryEstimate(
        weights=weights,
        compute_copy=params * _COPY_BYTES[precision],
        gradients=trained * _FLOAT32_BYTES * parallelism,
        optimizer=ADAMW_MOMENTS * trained * _FLOAT32_BYTES,
        activations=shape.layers * kept.features + positions * shape.d_model * outside,
        attention=shape.layers * kept.attention,
        recompute_workspace=0 if on_cpu else layer("none").total - kept.total,
        logits=parallelism
        * logit_chunk_positions(-(-positions // parallelism))
        * shape.logit_width
        * LOGIT_BYTES
        + positions * shape.d_model * _FEATURE_GRADIENT_BYTES,
        frozen_weights=frozen_weights,
    )
    if not on_cpu:
        # XLA computes the logits of nearly all chunks before it uses them.
        every = positions * shape.logit_width * _ACTIVATION_BYTES[precision]
        return replace(estimate, logits=estimate.logits + every)
    if lora is not None:
        frozen_params = shape.params_total - head_params(shape)
        estimate = replace(estimate, compute_copy=frozen_params * _CPU_FROZEN_COPY_BYTES)
    beside = max(_CPU_COMPILER_BYTES - estimate.total, _CPU_STEP_BYTES)
    return replace(estimate, process=_CPU_LIBRARY_BYTES + beside)
