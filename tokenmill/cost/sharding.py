"""Memory per chip when weights, moments or layers are spread over chips, and how many chips fit.

Rajbhandari et al. 2020 ("ZeRO") spread the optimizer's moments (stage 1), gradients too (2) and
weights too (3, also called fully sharded data parallel). Tensor parallelism with sequence
parallelism spreads all of a layer, its activations too (Korthikanti et al. 2022, sec. 4.2).
Experts are spread over chips by expert parallelism, here beside stage 1 (Lepikhin et al. 2020,
"GShard"). Buffers of communication are not counted beyond the two gathered layers of stage 3: real
use is higher by a few GiB. The Trainer has the first two ways (train.zero) and the spread experts
(train.expert_parallel); the others are for planning.

What a chip sends is counted as rings do it (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce
algorithms"): of n chips each sends (n-1)/n of the bytes in a gather or a reduce-scatter, and twice
as much in an all-reduce. On several machines a collective is two: of m chips of a machine each
sends (m-1)/m of the bytes to the others there, and of its own m-th part what n/m chips of as many
machines send each other. Together that is as much as one ring sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from tokenmill.contracts.ledger import StrategyFit
from tokenmill.cost.checks import check_positive
from tokenmill.cost.memory import (
    ADAMW_MOMENTS,
    CPU_ISLANDS_PROCESS_BYTES,
    RESERVED_SHARE,
    MemoryEstimate,
    Precision,
)
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape

Strategy = Literal["data", "zero1", "zero2", "zero3", "tensor", "tensor-zero3", "expert"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
# What `tokenmill run` can do, by train.zero and train.expert_parallel; the others are for planning
# only.
RUNNABLE: tuple[Strategy, ...] = ("data", "zero1", "expert")
STRATEGY_NAMES = {
    "data": "data parallel, everything on each chip",
    "zero1": "ZeRO 1: moments spread",
    "zero2": "ZeRO 2: moments and gradients spread",
    "zero3": "ZeRO 3 / FSDP: weights spread too",
    "tensor": "tensor parallel, at most 8 chips",
    "tensor-zero3": "tensor parallel 8 x ZeRO 3",
    "expert": "experts spread, beside ZeRO 1",
}
_ZERO_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "tensor-zero3": 3, "expert": 1}
# Tensor parallelism exchanges activations in every layer: it pays within one node only.
TENSOR_GROUP = 8
# Stage 3 holds the layer at work and prefetches the next one.
GATHERED_LAYERS = 2
MOST_CHIPS = 2**17


@dataclass(frozen=True)
class Experts:
    """The experts of a layer, as far as they can be spread over chips.

    Attributes:
        count: Of a layer; 1 in a dense model.
        share: Of all trained weights, a fraction; routers and shared experts are on every chip.
    """

    count: int = 1
    share: float = 0.0

    @classmethod
    def of(cls, shape: ModelShape, lora: LoraConfig | None = None) -> Experts:
        """Return those of a model; none where adapters alone are trained."""
        if lora is not None:
            return cls()
        params = len(shape.moe_layers) * shape.experts * shape.expert_params
        return cls(shape.experts, params / shape.params_total if shape.experts > 1 else 0.0)


DENSE = Experts()


class Exchanged(NamedTuple):
    """What the layers of one copy of the model hand over in one step.

    Attributes:
        layer_outputs: Bytes of all layers' outputs: tensor parallelism sums them.
        dispatched: Bytes of the vectors that tokens send to their experts, one for each expert.
    """

    layer_outputs: int = 0
    dispatched: int = 0

    @classmethod
    def of(cls, shape: ModelShape, sequences: int, precision: Precision) -> Exchanged:
        """Count what a copy hands over.

        Args:
            shape: The model.
            sequences: Of one copy of the model in one step.
            precision: Of the computation.
        """
        size = 4 if precision == "float32" else 2
        layer = sequences * shape.sequence_length * shape.d_model * size
        experts = len(shape.moe_layers) * shape.experts_per_token
        return cls(shape.layers * layer, experts * layer)


NOTHING = Exchanged()


class Traffic(NamedTuple):
    """What one chip sends in a step.

    Attributes:
        link: Bytes to chips of its own machine.
        network: Bytes to chips of other machines.
    """

    link: float
    network: float

    @property
    def total(self) -> int:
        """Bytes of both."""
        return round(self.link + self.network)

    def plus(self, other: Traffic) -> Traffic:
        """Return what is sent with something else besides."""
        return Traffic(self.link + other.link, self.network + other.network)


def shard_memory(
    memory: MemoryEstimate,
    strategy: Strategy,
    chips: int,
    layers: int,
    experts: Experts = DENSE,
) -> MemoryEstimate:
    """Estimate the bytes on one chip when a strategy spreads what one chip would hold.

    Args:
        memory: What one chip holds in data parallelism.
        strategy: How to spread it.
        chips: Chips to spread it over. Tensor parallelism uses at most 8 of them; those 8 then
            share one chip's sequences.
        layers: Layers of the model.
        experts: What expert parallelism spreads.

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
    stage = _ZERO_STAGES.get(strategy, 0)
    over = max(1, chips // group)
    if strategy == "expert" and chips > 1:
        # Replicas wait for each other in every layer: no parts are computed side by side.
        memory = replace(memory, gradients=memory.optimizer // ADAMW_MOMENTS)
        if memory.process:
            memory = replace(memory, process=CPU_ISLANDS_PROCESS_BYTES)
    if stage >= 1:
        memory = replace(memory, optimizer=-(-memory.optimizer // over))
    if strategy == "expert":
        spread = min(chips, experts.count)
        saved = experts.share * (1 - _most_held(experts, spread))
        memory = replace(
            memory,
            **{
                name: size - int(size * saved)
                for name, size in memory.by_part().items()
                if name in ("weights", "compute_copy", "gradients")
            },
        )
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


def traffic(
    memory: MemoryEstimate,
    strategy: Strategy,
    chips: int,
    exchanged: Exchanged = NOTHING,
    experts: Experts = DENSE,
    chips_per_machine: int | None = None,
) -> Traffic:
    """Count the bytes that one chip sends in a step.

    Gradients are float32 and are summed once a step. Stage 1 sums all of them on each chip, as the
    Trainer does (TensorFlow has no reduce-scatter on CPUs), and gathers the weights; stages 2 and 3
    send each chip its part of the sum. Stage 3 gathers what computes twice, for the forward and the
    backward pass (Rajbhandari et al. 2020, sec. 7). Tensor parallelism sums each layer's output
    four times (Shoeybi et al. 2019, "Megatron-LM", sec. 3), twice forward, twice backward. Experts
    are sent vectors and send them back, forward and backward; their gradients are summed over
    the chips that have the same experts only.

    Args:
        memory: What one chip holds in data parallelism.
        strategy: How the model is spread.
        chips: Chips in all.
        exchanged: What the layers of one copy hand over.
        experts: What expert parallelism spreads.
        chips_per_machine: Chips that are joined more closely; None counts all as of one machine.
    """
    check_positive("chips", chips, "chips")
    near = chips if chips_per_machine is None else min(chips, chips_per_machine)
    # One a weight: where parts of a batch are computed side by side, memory has one for each.
    gradients = memory.optimizer // ADAMW_MOMENTS
    computed = memory.compute_copy or memory.weights + memory.frozen_weights
    handed = (
        2 * gradients,
        2 * gradients + memory.weights,
        gradients + memory.weights,
        gradients + 2 * computed,
    )[_ZERO_STAGES.get(strategy, 0)]
    if strategy == "expert":
        spread = min(chips, experts.count)
        of_experts = handed * experts.share * _most_held(experts, spread)
        sent = _collective(handed * (1 - experts.share), chips, near)
        sent = sent.plus(_collective(of_experts, -(-chips // spread), near // spread))
        return sent.plus(_all_to_all(4 * exchanged.dispatched, spread, near))
    group = min(chips, TENSOR_GROUP) if strategy.startswith("tensor") else 1
    sent = _collective(handed / group, chips // group, near // group)
    return sent.plus(_collective(4 * 2 * exchanged.layer_outputs, group, near))


def _most_held(experts: Experts, spread: int) -> float:
    """Return the share of a layer's experts on the chip of so many that holds most of them."""
    return -(-experts.count // spread) / experts.count


def _collective(size: float, chips: int, near: int) -> Traffic:
    """Count what a chip sends when bytes are gathered, or summed to parts, over chips.

    Args:
        size: Bytes.
        chips: Who take part.
        near: Of them those of one machine; 0 stands for itself alone.
    """
    near = max(1, min(near, chips))
    machines = chips / near
    return Traffic(size * (near - 1) / near, size / near * (machines - 1) / machines)


def _all_to_all(size: float, chips: int, near: int) -> Traffic:
    """Count what a chip sends of bytes that go to all chips in equal parts, itself included."""
    near = min(near, chips)
    return Traffic(size * (near - 1) / chips, size * (chips - near) / chips)


def sent_by_ring(handed: Mapping[str, int], replicas: int) -> int:
    """Count the bytes that a replica sends of what it hands to collectives, as rings do it.

    Args:
        handed: Bytes by collective (telemetry.json, collective_bytes_per_step): all_reduce of the
            whole sum, all_gather of its own part.
        replicas: Who take part.
    """
    summed, own = handed.get("all_reduce", 0), handed.get("all_gather", 0)
    return round(2 * summed * (replicas - 1) / replicas + own * (replicas - 1))


def copies(strategy: Strategy, chips: int) -> int:
    """Return the number of copies of the model, each with its share of the batch, on some chips."""
    return max(1, chips // TENSOR_GROUP) if strategy.startswith("tensor") else chips


def bytes_per_chip(
    memory_of: Callable[[int], MemoryEstimate],
    strategy: Strategy,
    chips: int,
    layers: int,
    experts: Experts = DENSE,
) -> MemoryEstimate:
    """Estimate the bytes on one of a number of chips.

    Args:
        memory_of: From the number of copies of the model to what one copy takes on one chip, with
            its share of the batch.
        strategy: How a copy is spread.
        chips: Chips.
        layers: Layers of the model.
        experts: What expert parallelism spreads.
    """
    return shard_memory(memory_of(copies(strategy, chips)), strategy, chips, layers, experts)


def strategy_fits(
    memory_of: Callable[[int], MemoryEstimate],
    *,
    chips: int,
    layers: int,
    memory_bytes: float | None,
    reserved_share: float = RESERVED_SHARE,
    beside_bytes: int = 0,
    exchanged_of: Callable[[int], Exchanged] = lambda copies: NOTHING,
    experts: Experts = DENSE,
    chips_per_machine: int | None = None,
) -> list[StrategyFit]:
    """Compare all strategies on one kind of chip.

    Args:
        memory_of: From the number of copies of the model to what one copy takes on one chip.
        chips: The chips at hand.
        layers: Layers of the model.
        memory_bytes: Memory of one chip; None if unknown.
        reserved_share: Share of it that tensors cannot have.
        beside_bytes: What else is in it, on every chip: on a CPU the copy of a checkpoint.
        exchanged_of: From the number of copies to what the layers of one hand over in a step.
        experts: What expert parallelism spreads.
        chips_per_machine: Chips that are joined more closely; None if unknown.

    Returns:
        One line a strategy, in the order of STRATEGIES; without experts none that spreads them.
    """

    def size(strategy: Strategy, count: int) -> int:
        return bytes_per_chip(memory_of, strategy, count, layers, experts).total

    room = None if memory_bytes is None else memory_bytes * (1 - reserved_share) - beside_bytes
    fits = []
    for strategy in get_args(Strategy):
        if strategy == "expert" and experts.count == 1:
            continue
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
        number = copies(strategy, chips)
        sent = traffic(
            memory_of(number), strategy, chips, exchanged_of(number), experts, chips_per_machine
        )
        fits.append(
            StrategyFit(
                strategy=strategy,
                bytes_per_chip=here,
                fits=None if room is None else here <= room,
                smallest_chips=smallest,
                # The Trainer gives each chip as many experts as any other.
                runnable=strategy in RUNNABLE
                and (strategy != "expert" or experts.count % chips == 0),
                sent_bytes_per_step=sent.total,
                between_machines_bytes_per_step=(
                    None if chips_per_machine is None and chips > 1 else round(sent.network)
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
