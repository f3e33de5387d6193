"""Memory per chip when weights, moments or layers are spread over chips, and how many chips fit.

Rajbhandari et al. 2020 ("ZeRO") spread the optimiser's moments (stage 1), gradients too (2) and
weights too (3, also called fully sharded data parallel). Tensor parallelism with sequence
parallelism spreads all of a layer, its activations too (Korthikanti et al. 2022, sec. 4.2).
Buffers of communication are not counted beyond the two gathered layers of stage 3: real use is
higher by a few GiB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from components.ledger import check_positive
from components.ledger.memory import RESERVED_SHARE, MemoryEstimate

Strategy = Literal["data", "zero1", "zero2", "zero3", "tensor", "tensor-zero3"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
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
    memory: MemoryEstimate, strategy: Strategy, chips: int, n_layers: int
) -> MemoryEstimate:
    """Bytes on one chip when a strategy spreads what one chip would hold.

    Args:
        memory: What one chip holds in data parallelism.
        strategy: How to spread it.
        chips: Chips to spread it over. Tensor parallelism uses at most 8 of them; those 8 then
            share one chip's sequences.
        n_layers: Layers of the model.

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
        memory = replace(memory, optimiser=-(-memory.optimiser // over))
    if stage >= 2:
        memory = replace(memory, gradients=-(-memory.gradients // over))
    if stage >= 3 and over > 1:
        # The gathered layers are in the type that computes.
        computed = memory.compute_copy or memory.weights
        gathered = computed * min(1.0, GATHERED_LAYERS / n_layers)
        memory = replace(
            memory,
            weights=-(-memory.weights // over),
            compute_copy=-(-memory.compute_copy // over) + int(gathered),
        )
    return memory


@dataclass(frozen=True, kw_only=True)
class StrategyFit:
    """Whether a strategy fits.

    Attributes:
        strategy: Its name.
        bytes_per_chip: Bytes on each of the given chips.
        fits: Whether they fit the given chips.
        smallest_chips: The smallest count that fits (powers of two); None if none does.
    """

    strategy: str
    bytes_per_chip: int
    fits: bool | None
    smallest_chips: int | None


def strategy_fits(
    memory: MemoryEstimate,
    *,
    chips: int,
    n_layers: int,
    memory_bytes: int | None,
    reserved_share: float = RESERVED_SHARE,
) -> list[StrategyFit]:
    """Compare all strategies on one kind of chip.

    Args:
        memory: What one chip holds in data parallelism.
        chips: The chips at hand.
        n_layers: Layers of the model.
        memory_bytes: Memory of one chip; None if unknown.
        reserved_share: Share of it that tensors cannot have.

    Returns:
        One line a strategy, in the order of STRATEGIES.
    """

    def size(strategy: Strategy, count: int) -> int:
        return shard_memory(memory, strategy, count, n_layers).total

    fits = []
    for strategy in get_args(Strategy):
        smallest = None
        room = None if memory_bytes is None else memory_bytes * (1 - reserved_share)
        if room is not None:
            most = {"data": 1, "tensor": TENSOR_GROUP}.get(strategy, MOST_CHIPS)
            counts = [2**power for power in range(most.bit_length())]
            if strategy == "tensor-zero3":
                counts = [count for count in counts if count >= TENSOR_GROUP]
            smallest = next((count for count in counts if size(strategy, count) <= room), None)
        here = size(strategy, chips)
        fits.append(
            StrategyFit(
                strategy=strategy,
                bytes_per_chip=here,
                fits=None if room is None else here <= room,
                smallest_chips=smallest,
            )
        )
    return fits
