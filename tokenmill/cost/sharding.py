"""Memory per chip when weights, moments or layers are spread over chips, and how many chips fit.

Rajbhandari et al. 2020 ("ZeRO") spread the optimizer's moments (stage 1), gradients too (2) and
weights too (3, also called fully sharded data parallel). Tensor parallelism with sequence
parallelism spreads all of a layer, its activations too (Korthikanti et al. 2022, sec. 4.2).
Buffers of communication are not counted beyond the two gathered layers of stage 3: real use is
higher by a few GiB. The Trainer has the first two ways (train.zero); the others are for planning.

What a chip sends is counted as rings do it (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce
algorithms"): of n chips each sends (n-1)/n of the bytes in a gather or a reduce-scatter, and twice
as much in an all-reduce.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from tokenmill.contracts.ledger import StrategyFit
from tokenmill.cost.checks import check_positive
from tokenmill.cost.memory import RESERVED_SHARE, MemoryEstimate, Precision
from tokenmill.model.shape import ModelShape

Strategy = Literal["data", "zero1", "zero2", "zero3", "tensor", "tensor-zero3"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
# What `tokenmill run` can do, by train.zero; the others are for planning only.
RUNNABLE: tuple[Strategy, ...] = ("data", "zero1")
STRATEGY_NAMES = {
    "data": "data parallel, everything on each chip",
    "zero1": "ZeRO 1: moments spread",
    "zero2": "ZeRO 2: moments and gradients spread",
    "zero3": "ZeRO 3 / FSDP: weights spread too",
    "tensor": "tensor parallel, at most 8 chips",
    "tensor-zero3": "tensor parallel 8 x ZeRO 3",
}
# Tensor parallelism exchanges activations in every layer: it pays within one node only.
TENSOR_GROUP = 8
# Stage 3 holds the layer at work and prefetches the next one.
GATHERED_LAYERS = 2
MOST_CHIPS = 2**17


def shard_memory(
    memory: MemoryEstimate, strategy: Strategy, chips: int, layers: int
) -> MemoryEstimate:
    """Estimate the bytes on one chip when a strategy spreads what one chip would hold.

    Args:
        memory: What one chip holds in data parallelism.
        strategy: How to spread it.
        chips: Chips to spread it over. Tensor parallelism uses at most 8 of them; those 8 then
            share one chip's sequences.
        layers: Layers of the model.

    Returns:
        Bytes by part.
    """
    check_positive("chips", chips, "chips")
    if strategy not in STRATEGIES:
        raise ValueError(
            f"strategy = {strategy!r}: expected one of {', '.join(STRATEGIES)}; choose one."
        )
    group = min(chips, TENSOR_GROUP) if strategy.startswith("tensor") else 1
    if group > 1:
        parts = {name: -(-size // group) for name, size in memory.by_part().items()}
        memory = MemoryEstimate(**parts)
    stage = {"zero1": 1, "zero2": 2, "zero3": 3, "tensor-zero3": 3}.get(strategy, 0)
    over = max(1, chips // group)
    if stage >= 1:
        memory = replace(memory, optimizer=-(-memory.optimizer // over))
    if stage >= 2:
        memory = replace(memory, gradients=-(-memory.gradients // over))
    if stage >= 3 and over > 1:
        # The gathered layers are in the type that computes.
        computed = memory.compute_copy or memory.weights + memory.frozen_weights
        gathered = computed * min(1.0, GATHERED_LAYERS / layers)
        memory = replace(
            memory,
            weights=-(-memory.weights // over),
            frozen_weights=-(-memory.frozen_weights // over),
            compute_copy=-(-memory.compute_copy // over) + int(gathered),
        )
    return memory


def sent_bytes(
    memory: MemoryEstimate, strategy: Strategy, chips: int, exchanged_bytes: int = 0
) -> int:
    """Count the bytes that one chip sends in a step.

    Gradients are float32 and are summed once a step. Stage 1 sums all of them on each chip, as the
    Trainer does (TensorFlow has no reduce-scatter on CPUs), and gathers the weights; stages 2 and 3
    send each chip its part of the sum. Stage 3 gathers what computes twice, for the forward and the
    backward pass (Rajbhandari et al. 2020, sec. 7).

    Args:
        memory: What one chip holds in data parallelism, with one gradient a weight.
        strategy: How the model is spread.
        chips: Chips in all.
        exchanged_bytes: Outputs of all layers for one copy's sequences, bytes: tensor parallelism
            sums them four times (Shoeybi et al. 2019, "Megatron-LM", sec. 3), twice forward, twice
            backward.
    """
    check_positive("chips", chips, "chips")
    group = min(chips, TENSOR_GROUP) if strategy.startswith("tensor") else 1
    over = max(1, chips // group)
    computed = memory.compute_copy or memory.weights + memory.frozen_weights
    stage = {"zero1": 1, "zero2": 2, "zero3": 3, "tensor-zero3": 3}.get(strategy, 0)
    handed = (
        2 * memory.gradients,
        2 * memory.gradients + memory.weights,
        memory.gradients + memory.weights,
        memory.gradients + 2 * computed,
    )[stage]
    return round(handed / group * (over - 1) / over + 4 * 2 * exchanged_bytes * (group - 1) / group)


def layer_output_bytes(shape: ModelShape, sequences: int, precision: Precision) -> int:
    """Count the bytes of all layers' outputs, which tensor parallelism exchanges in a step.

    Args:
        shape: The model.
        sequences: Of one copy of the model in one step.
        precision: Of the computation.
    """
    size = 4 if precision == "float32" else 2
    return shape.layers * sequences * shape.sequence_length * shape.d_model * size


def copies(strategy: Strategy, chips: int) -> int:
    """Return the number of copies of the model, each with its share of the batch, on some chips."""
    return max(1, chips // TENSOR_GROUP) if strategy.startswith("tensor") else chips


def bytes_per_chip(
    memory_of: Callable[[int], MemoryEstimate], strategy: Strategy, chips: int, layers: int
) -> MemoryEstimate:
    """Estimate the bytes on one of a number of chips.

    Args:
        memory_of: From the number of copies of the model to what one copy takes on one chip, with
            its share of the batch.
        strategy: How a copy is spread.
        chips: Chips.
        layers: Layers of the model.
    """
    return shard_memory(memory_of(copies(strategy, chips)), strategy, chips, layers)


def strategy_fits(
    memory_of: Callable[[int], MemoryEstimate],
    *,
    chips: int,
    layers: int,
    memory_bytes: float | None,
    reserved_share: float = RESERVED_SHARE,
    exchanged_bytes_of: Callable[[int], int] = lambda copies: 0,
) -> list[StrategyFit]:
    """Compare all strategies on one kind of chip.

    Args:
        memory_of: From the number of copies of the model to what one copy takes on one chip.
        chips: The chips at hand.
        layers: Layers of the model.
        memory_bytes: Memory of one chip; None if unknown.
        reserved_share: Share of it that tensors cannot have.
        exchanged_bytes_of: From the number of copies to the bytes of one copy's layers' outputs.

    Returns:
        One line a strategy, in the order of STRATEGIES.
    """

    def size(strategy: Strategy, count: int) -> int:
        return bytes_per_chip(memory_of, strategy, count, layers).total

    room = None if memory_bytes is None else memory_bytes * (1 - reserved_share)
    fits = []
    for strategy in get_args(Strategy):
        here = size(strategy, chips)
        smallest = None
        if room is not None:
            # Eight chips are a copy of the strategies with tensor parallelism.
            unit = TENSOR_GROUP if strategy == "tensor-zero3" else 1
            most = TENSOR_GROUP if strategy == "tensor" else MOST_CHIPS

            def enough(count: int, strategy: Strategy = strategy, room: float = room) -> bool:
                return size(strategy, count) <= room

            # Layers are split among 2, 4 or 8 chips, never 3.
            smallest = _smallest(enough, unit, most, between=strategy != "tensor")
        fits.append(
            StrategyFit(
                strategy=strategy,
                bytes_per_chip=here,
                fits=None if room is None else here <= room,
                smallest_chips=smallest,
                runnable=strategy in RUNNABLE,
                sent_bytes_per_step=sent_bytes(
                    memory_of(copies(strategy, chips)),
                    strategy,
                    chips,
                    exchanged_bytes_of(copies(strategy, chips)),
                ),
            )
        )
    return fits


def _smallest(fits: Callable[[int], bool], unit: int, most: int, between: bool) -> int | None:
    """Find the least multiple of a unit that fits, as more never need more; None if none does.

    Without `between` only the doubles of the unit count.
    """
    count = unit
    while not fits(count):
        count *= 2
        if count > most:
            return None
    low, high = count // 2 // unit, count // unit  # half of it did not fit
    while between and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle * unit) else (middle, high)
    return high * unit
