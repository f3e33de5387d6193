"""A whole plan before there is any data: FLOPs, time, memory, money, checkpoints, guidance.

Built from the same functions as the ledger of a run, for a model of which the shape or only the
number of parameters is known. Standard library only, so that `tokenmill plan` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenmill.contracts.ladder import LadderLaw
from tokenmill.contracts.ledger import CheckpointPlan, StrategyFit
from tokenmill.cost.checkpoint_interval import (
    CHECKPOINTS_KEPT,
    CHIP_MTBF_HOURS,
    RESTART_SECONDS,
    plan_checkpoints,
)
from tokenmill.cost.checks import check_fraction, check_positive
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.flops import Recompute, model_flops_utilization, throughput
from tokenmill.cost.memory import MemoryEstimate, share_of_batch
from tokenmill.cost.network import Network
from tokenmill.cost.plan.hardware import Hardware
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.cost.pricing import (
    HIDDEN_COST_HIGH,
    HIDDEN_COST_LOW,
    SECONDS_PER_HOUR,
    CostEstimate,
    estimate_cost,
)
from tokenmill.cost.scaling import Goal, repetition_discounted_tokens
from tokenmill.cost.sharding import (
    Exchanged,
    Strategy,
    Traffic,
    bytes_per_chip,
    copies,
    strategy_fits,
    traffic,
)
from tokenmill.cost.utilization import FlopsBasis, UtilizationRange, utilization_range

HOURS_PER_MONTH = 730.0


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Inputs of a plan; units in the names.

    Attributes:
        model: What is trained.
        unique_tokens: Tokens of the corpus.
        epochs: Passes over them.
        loss_share: Share of the tokens that a pass computes a loss of (masked-lm: hides).
        hardware: What it is trained on.
        flops_basis: Which FLOPs hours are made of; None means exact for a known shape, else 6·N.
        recompute: Which activations the backward pass computes again.
        dropout: Whether the layers have dropout.
        strategy: How the model is spread over chips.
        global_batch_size: Sequences a step, over all chips, however many; None means one
            sequence on each copy of the model.
        accumulation_steps: Parts that a step is computed in, one after the other.
        bytes_per_token: Bytes of text in a token, for storage.
        hidden_multiplier_low: Least that everything costs, as a multiple of the compute bill.
        hidden_multiplier_high: Most that everything costs, likewise.
        storage_usd_per_gb_month: Rate; None leaves the line open.
        network_usd_per_gb: Rate of what goes in or out; None leaves the line open.
        write_bytes_per_second: Of checkpoints, all hosts together.
        chip_mtbf_hours: Mean time between failures of one chip.
        restart_seconds: From a failure until training goes on.
        checkpoints_kept: Checkpoints on disk at a time.
        goal: What the user wants the tokens for.
        law: Of the text's own ladder; None without one.
    """

    model: PlannedModel
    unique_tokens: float
    epochs: float = 1.0
    loss_share: float = 1.0
    hardware: Hardware
    flops_basis: FlopsBasis | None = None
    recompute: Recompute = "none"
    dropout: bool = False
    strategy: Strategy = "data"
    global_batch_size: int | None = None
    accumulation_steps: int = 1
    bytes_per_token: float = 4.0
    hidden_multiplier_low: float = HIDDEN_COST_LOW
    hidden_multiplier_high: float = HIDDEN_COST_HIGH
    storage_usd_per_gb_month: float | None = None
    network_usd_per_gb: float | None = None
    write_bytes_per_second: float | None = None
    chip_mtbf_hours: float = CHIP_MTBF_HOURS
    restart_seconds: float = RESTART_SECONDS
    checkpoints_kept: int = CHECKPOINTS_KEPT
    goal: Goal | None = None
    law: LadderLaw | None = None

    @property
    def tokens(self) -> float:
        """Tokens processed: all epochs."""
        return self.unique_tokens * self.epochs

    @property
    def effective_tokens(self) -> float:
        """Tokens processed that bear a loss, discounted for repetition."""
        return repetition_discounted_tokens(self.unique_tokens * self.loss_share, self.epochs)

    @property
    def sequences_per_copy(self) -> int:
        """Sequences that one copy of the model holds at a time."""
        return self._sequences(copies(self.strategy, self.hardware.devices))

    def _sequences(self, number: int) -> int:
        batch = self.global_batch_size
        return 1 if batch is None else share_of_batch(batch, number, self.accumulation_steps)

    def memory_of_copy(self, number: int) -> MemoryEstimate:
        """Count the bytes of one of a number of copies of the model, all on one chip."""
        return self.model.memory(
            self._sequences(number),
            self.hardware.precision,
            self.recompute,
            self.dropout,
            self.hardware.parallelism,
            self.hardware.chip.slug == CPU_CHIP,
        )

    def exchanged(self, number: int) -> Exchanged:
        """Count what the layers of one of a number of copies hand over in one step."""
        sequences = self._sequences(number) * self.accumulation_steps
        return Exchanged.of(self.model.shape, sequences, self.hardware.precision)

    @property
    def traffic(self) -> Traffic:
        """Bytes that a chip sends in a step."""
        number = copies(self.strategy, self.hardware.devices)
        return traffic(
            self.memory_of_copy(number),
            self.strategy,
            self.hardware.devices,
            self.exchanged(number),
            self.model.experts,
            self.hardware.chip.chips_per_machine,
        )

    @property
    def step_tokens(self) -> int:
        """Tokens of a step, over all copies of the model."""
        number = copies(self.strategy, self.hardware.devices)
        of_a_copy = self._sequences(number) * self.accumulation_steps
        sequences = self.global_batch_size or of_a_copy * number
        return sequences * self.model.shape.sequence_length

    @property
    def basis(self) -> FlopsBasis:
        """Which FLOPs hours are made of."""
        return self.model.basis(self.flops_basis)

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token by the basis."""
        return self.model.flops_per_token(self.basis)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """FLOPs, time, memory, money and checkpoints of a planned run.

    Attributes:
        request: The inputs.
        mfu: MFU of the central estimate, a fraction of the peak in the basis' FLOPs.
        hfu: The same with recomputation counted.
        mfu_source: Where the MFU comes from, in words.
        utilization: The range of published runs, where the MFU is from there.
        cost: Central estimate. Money is zero where there is no price.
        cost_low: The estimate at the best utilization of the range (equal to ``cost`` without).
        cost_high: The estimate at the worst.
        memory: Bytes on one chip by part, with the strategy.
        fits: All strategies compared.
        network: What a chip sends with the strategy.
        checkpoints: When to save; None if the run could hardly end.
        storage_usd: Corpus and kept checkpoints for the length of the run; None without a rate.
        network_usd: Corpus in, once; kept checkpoints out, once; None without a rate.
    """

    request: PlanRequest
    mfu: float
    hfu: float
    mfu_source: str
    utilization: UtilizationRange | None
    cost: CostEstimate
    cost_low: CostEstimate
    cost_high: CostEstimate
    memory: MemoryEstimate
    fits: list[StrategyFit]
    network: Network
    checkpoints: CheckpointPlan | None
    storage_usd: float | None
    network_usd: float | None

    @property
    def checkpoint_copy_bytes(self) -> int:
        """Memory of the chief's machine that a checkpoint takes until it is written, bytes."""
        return self.request.memory_of_copy(1).checkpoint_bytes

    @property
    def needed_bytes(self) -> int:
        """Memory of one chip; of a CPU with the copy of a checkpoint, which is there too."""
        on_cpu = self.request.hardware.chip.slug == CPU_CHIP
        return self.memory.total + (self.checkpoint_copy_bytes if on_cpu else 0)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the steps, all chips together."""
        hardware = self.request.hardware
        return throughput(
            mfu=self.mfu,
            flops_per_token=self.request.flops_per_token,
            chips=hardware.chips,
            peak_flops_per_second=hardware.peak_flops_per_second,
        )


def make_plan(request: PlanRequest) -> Plan:
    """Work out a plan.

    Args:
        request: Its inputs.

    Returns:
        The plan.

    Raises:
        ValueError: If a number is out of range.
    """
    check_positive("tokens", request.unique_tokens, "tokens")
    check_positive("epochs", request.epochs, "epochs")
    hardware = request.hardware
    mfu, source, published = _utilization(request)
    share = request.model.hardware_share(request.recompute)

    def cost(utilization: float) -> CostEstimate:
        return estimate_cost(
            total_flops=request.flops_per_token * request.tokens,
            effective_tokens=request.effective_tokens,
            chips=hardware.chips,
            peak_flops_per_second=hardware.peak_flops_per_second,
            mfu=utilization,
            price_usd_per_chip_hour=hardware.price_usd_per_chip_hour or 0.0,
            goodput=hardware.goodput,
            hidden_multiplier_low=request.hidden_multiplier_low,
            hidden_multiplier_high=request.hidden_multiplier_high,
        )

    central = cost(mfu)
    layers = request.model.shape.layers
    copied = request.memory_of_copy(1).checkpoint_bytes
    experts = request.model.experts
    if request.strategy == "expert" and experts.count == 1:
        raise ValueError(
            'strategy = "expert": expected a model with experts whose shape is known and that is '
            "trained whole; give its shape, or choose another strategy."
        )
    memory = bytes_per_chip(
        request.memory_of_copy, request.strategy, hardware.devices, layers, experts
    )
    fits = strategy_fits(
        request.memory_of_copy,
        chips=hardware.devices,
        layers=layers,
        memory_bytes=hardware.memory_bytes,
        beside_bytes=copied if hardware.chip.slug == CPU_CHIP else 0,
        exchanged_of=request.exchanged,
        experts=experts,
        chips_per_machine=hardware.chip.chips_per_machine,
    )
    checkpoints = _checkpoints(request, copied, central)
    storage, network = _by_rate(request, central, checkpoints)
    return Plan(
        request=request,
        mfu=mfu,
        hfu=mfu * share,
        mfu_source=source,
        utilization=published,
        cost=central,
        cost_low=cost(published.high) if published else central,
        cost_high=cost(published.low) if published else central,
        memory=memory,
        fits=fits,
        network=Network.of(
            request.traffic,
            hardware.chip,
            request.step_tokens
            * request.flops_per_token
            / (hardware.chips * hardware.peak_flops_per_second * mfu),
        ),
        checkpoints=checkpoints,
        storage_usd=storage,
        network_usd=network,
    )


def _utilization(request: PlanRequest) -> tuple[float, str, UtilizationRange | None]:
    """Return the MFU, where it comes from, and the published range if from there."""
    hardware = request.hardware
    if hardware.observed_tokens_per_second is not None:
        observed = model_flops_utilization(
            tokens_per_second=hardware.observed_tokens_per_second,
            flops_per_token=request.flops_per_token,
            chips=hardware.chips,
            peak_flops_per_second=hardware.peak_flops_per_second,
        )
        if observed > 1:
            raise ValueError(
                f"--observed-tokens-per-second = {hardware.observed_tokens_per_second:g}: that is "
                f"{observed:.0%} of the peak of {hardware.chips:,} {hardware.chip.slug}; it must "
                "be of all chips together, and chips and peak must be those of the observation."
            )
        return observed, "observed tokens per second", None
    if hardware.hfu is not None:
        check_fraction("hfu", hardware.hfu)
        share = request.model.hardware_share(request.recompute)
        return hardware.hfu / share, f"given HFU over {share:.3f} (recomputation)", None
    if hardware.mfu is not None:
        check_fraction("mfu", hardware.mfu)
        return hardware.mfu, hardware.mfu_source, None
    model = request.model
    published = utilization_range(
        hardware.chip,
        model.params_active,
        request.basis,
        sparse=model.is_sparse,
    )
    return published.median, published.words, published


def _checkpoints(
    request: PlanRequest, checkpoint_bytes: int, cost: CostEstimate
) -> CheckpointPlan | None:
    try:
        return plan_checkpoints(
            checkpoint_bytes=checkpoint_bytes,
            work_seconds=cost.wall_seconds * request.hardware.goodput,
            chips=request.hardware.chips,
            write_bytes_per_second=request.write_bytes_per_second,
            chip_mtbf_hours=request.chip_mtbf_hours,
            restart_seconds=request.restart_seconds,
            kept=request.checkpoints_kept,
        )
    except ValueError:  # failures come faster than checkpoints can be written
        return None


def _by_rate(
    request: PlanRequest, cost: CostEstimate, checkpoints: CheckpointPlan | None
) -> tuple[float | None, float | None]:
    """Return the bills of storage and network, USD, each None without its rate."""
    corpus = request.unique_tokens * request.bytes_per_token
    kept = checkpoints.disk_bytes if checkpoints else 0
    gigabytes = (corpus + kept) / 1e9
    months = cost.wall_seconds / SECONDS_PER_HOUR / HOURS_PER_MONTH
    storage = request.storage_usd_per_gb_month
    network = request.network_usd_per_gb
    return (
        None if storage is None else storage * gigabytes * months,
        None if network is None else network * gigabytes,
    )
