"""A whole plan before there is any data: FLOPs, time, memory, money, checkpoints, guidance.

Built from the same functions as the ledger of a run, for a model of which the shape or only the
number of parameters is known. Standard library only, so that `tokenmill plan` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from components.ledger import check_fraction, check_positive
from components.ledger.checkpoints import (
    CHECKPOINTS_KEPT,
    CHIP_MTBF_HOURS,
    CheckpointPlan,
    plan_checkpoints,
)
from components.ledger.flops import (
    Recompute,
    TokenFlops,
    flops_per_token,
    flops_per_token_6n,
    flops_per_token_palm,
    model_flops_utilisation,
)
from components.ledger.memory import MemoryEstimate, Precision, estimate_memory
from components.ledger.money import (
    HIDDEN_COST_HIGH,
    HIDDEN_COST_LOW,
    SECONDS_PER_HOUR,
    CostEstimate,
    estimate_cost,
)
from components.ledger.planned_shape import params_active, typical_shape
from components.ledger.scaling import Goal, repetition_discounted_tokens
from components.ledger.sharding import Strategy, StrategyFit, shard_memory, strategy_fits
from components.ledger.utilisation import FlopsBasis, UtilisationRange, utilisation_range
from components.model_shape import ModelShape
from data.catalogue import Chip

HOURS_PER_MONTH = 730.0


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """What is to be trained.

    Attributes:
        shape: The shape; where only the number of parameters is known, a typical one.
        params_total: All parameters.
        params_active: Parameters that one token passes.
        shape_assumed: Whether the shape is a guess, so that the exact count is an approximation.
    """

    shape: ModelShape
    params_total: float
    params_active: float
    shape_assumed: bool = False

    @classmethod
    def of_shape(cls, shape: ModelShape) -> PlannedModel:
        """The model of a known shape."""
        return cls(shape=shape, params_total=shape.params_total, params_active=params_active(shape))

    @classmethod
    def of_params(
        cls, params: float, active: float | None = None, sequence_length: int | None = None
    ) -> PlannedModel:
        """A model of which only the number of parameters is known.

        Args:
            params: All parameters.
            active: Parameters that one token passes, if fewer.
            sequence_length: Tokens in a sequence, if known.
        """
        active = params if active is None else active
        guess = typical_shape(active)
        if sequence_length is not None:
            guess = replace(guess, sequence_length=sequence_length)
        return cls(shape=guess, params_total=params, params_active=active, shape_assumed=True)

    @property
    def flops_per_token_6n(self) -> float:
        """6·N, N being all parameters that a token passes."""
        return flops_per_token_6n(self.params_active)

    @property
    def flops_per_token_exact(self) -> float:
        """All matrix products; for an assumed shape 6·N + 12·L·T·d (PaLM, appendix B)."""
        if not self.shape_assumed:
            return flops_per_token(self.shape).training
        return flops_per_token_palm(
            params=self.params_active,
            n_layers=self.shape.n_layers,
            n_heads=self.shape.n_heads,
            head_dim=self.shape.head_dim,
            sequence_length=self.shape.sequence_length,
        )

    def hardware_share(self, recompute: Recompute) -> float:
        """Hardware FLOPs (recomputation too) over model FLOPs, by the shape's own count."""
        count: TokenFlops = flops_per_token(self.shape, recompute=recompute)
        return count.training_hardware / count.training

    def memory(
        self, sequences: int, precision: Precision, recompute: Recompute, dropout: bool
    ) -> MemoryEstimate:
        """Bytes on one chip in data parallelism, weights scaled to the true parameter count."""
        estimate = estimate_memory(
            self.shape,
            batch_per_device=sequences,
            precision=precision,
            recompute=recompute,
            dropout=dropout,
        )
        if not self.shape_assumed:
            return estimate
        factor = self.params_total / self.shape.params_total
        return replace(
            estimate,
            weights=int(estimate.weights * factor),
            compute_copy=int(estimate.compute_copy * factor),
            gradients=int(estimate.gradients * factor),
            optimiser=int(estimate.optimiser * factor),
        )


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Everything a plan depends on; units in the names.

    Attributes:
        model: What is trained.
        unique_tokens: Tokens of the corpus.
        epochs: Passes over them.
        chip: The chip.
        chips: How many.
        peak_flops_per_second: Dense peak of one chip in the precision used.
        price_usd_per_chip_hour: None where no price is known.
        mfu: Model FLOPs utilisation; None means a range from published runs.
        mfu_source: Where it comes from, in words.
        hfu: Hardware FLOPs utilisation, in place of ``mfu``.
        observed_tokens_per_second: Of all chips together, in place of ``mfu``.
        goodput: Share of the wall time that trains.
        flops_basis: Which FLOPs hours are made of; None means exact for a known shape, else 6·N.
        recompute: Which activations the backward pass computes again.
        precision: Of weights and computation.
        dropout: Whether the layers have dropout.
        strategy: How the model is spread over chips.
        sequences_per_chip: Sequences on one chip in one step.
        bytes_per_token: Bytes of text in a token, for storage.
        hidden_multiplier_low: Least that everything costs, as a multiple of the compute bill.
        hidden_multiplier_high: Most that everything costs, likewise.
        storage_usd_per_gb_month: Rate; None leaves the line open.
        network_usd_per_gb: Rate of what goes in or out; None leaves the line open.
        write_bytes_per_second: Of checkpoints, all hosts together.
        chip_mtbf_hours: Mean time between failures of one chip.
        checkpoints_kept: Checkpoints on disk at a time.
        goal: What the user wants the tokens for.
    """

    model: PlannedModel
    unique_tokens: float
    epochs: float = 1.0
    chip: Chip
    chips: int = 1
    peak_flops_per_second: float
    price_usd_per_chip_hour: float | None
    mfu: float | None = None
    mfu_source: str = "given"
    hfu: float | None = None
    observed_tokens_per_second: float | None = None
    goodput: float = 1.0
    flops_basis: FlopsBasis | None = None
    recompute: Recompute = "none"
    precision: Precision = "mixed_bfloat16"
    dropout: bool = False
    strategy: Strategy = "data"
    sequences_per_chip: int = 1
    bytes_per_token: float = 4.0
    hidden_multiplier_low: float = HIDDEN_COST_LOW
    hidden_multiplier_high: float = HIDDEN_COST_HIGH
    storage_usd_per_gb_month: float | None = None
    network_usd_per_gb: float | None = None
    write_bytes_per_second: float | None = None
    chip_mtbf_hours: float = CHIP_MTBF_HOURS
    checkpoints_kept: int = CHECKPOINTS_KEPT
    goal: Goal | None = None

    @property
    def tokens(self) -> float:
        """Tokens processed: all epochs."""
        return self.unique_tokens * self.epochs

    @property
    def effective_tokens(self) -> float:
        """Tokens processed, discounted for repetition."""
        return repetition_discounted_tokens(self.unique_tokens, self.epochs)

    @property
    def basis(self) -> FlopsBasis:
        """Which FLOPs hours are made of."""
        if self.flops_basis is not None:
            return self.flops_basis
        return "6n" if self.model.shape_assumed else "exact"

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token by the basis."""
        if self.basis == "6n":
            return self.model.flops_per_token_6n
        return self.model.flops_per_token_exact


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer.

    Attributes:
        request: What was asked.
        mfu: MFU of the central estimate, a fraction of the peak in the basis' FLOPs.
        hfu: The same with recomputation counted.
        mfu_source: Where the MFU comes from, in words.
        utilisation: The range of published runs, where the MFU is from there.
        cost: Central estimate. Money is zero where there is no price.
        cost_low: The estimate at the best utilisation of the range (equal to ``cost`` without).
        cost_high: The estimate at the worst.
        memory: Bytes on one chip by part, with the strategy.
        fits: All strategies compared.
        checkpoints: When to save; None if the run could hardly end.
        storage_usd: Corpus and kept checkpoints for the length of the run; None without a rate.
        network_usd: Corpus in, once; kept checkpoints out, once; None without a rate.
    """

    request: PlanRequest
    mfu: float
    hfu: float
    mfu_source: str
    utilisation: UtilisationRange | None
    cost: CostEstimate
    cost_low: CostEstimate
    cost_high: CostEstimate
    memory: MemoryEstimate
    fits: list[StrategyFit]
    checkpoints: CheckpointPlan | None
    storage_usd: float | None
    network_usd: float | None

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the steps, all chips together."""
        request = self.request
        rate = self.mfu * request.chips * request.peak_flops_per_second
        return rate / request.flops_per_token


def make_plan(request: PlanRequest) -> Plan:
    """Work out a plan.

    Args:
        request: What is asked.

    Returns:
        The plan.

    Raises:
        ValueError: If a number is out of range.
    """
    check_positive("tokens", request.unique_tokens, "tokens")
    check_positive("epochs", request.epochs, "epochs")
    mfu, source, published = _utilisation(request)
    share = request.model.hardware_share(request.recompute)

    def cost(utilisation: float) -> CostEstimate:
        return estimate_cost(
            total_flops=request.flops_per_token * request.tokens,
            effective_tokens=request.effective_tokens,
            chips=request.chips,
            peak_flops_per_second=request.peak_flops_per_second,
            mfu=utilisation,
            price_usd_per_chip_hour=request.price_usd_per_chip_hour or 0.0,
            goodput=request.goodput,
            hidden_multiplier_low=request.hidden_multiplier_low,
            hidden_multiplier_high=request.hidden_multiplier_high,
        )

    central = cost(mfu)
    one_chip = request.model.memory(
        request.sequences_per_chip, request.precision, request.recompute, request.dropout
    )
    layers = request.model.shape.n_layers
    checkpoints = _checkpoints(request, one_chip, central)
    storage, network = _by_rate(request, central, checkpoints)
    return Plan(
        request=request,
        mfu=mfu,
        hfu=mfu * share,
        mfu_source=source,
        utilisation=published,
        cost=central,
        cost_low=cost(published.high) if published else central,
        cost_high=cost(published.low) if published else central,
        memory=shard_memory(one_chip, request.strategy, request.chips, layers),
        fits=strategy_fits(
            one_chip,
            chips=request.chips,
            n_layers=layers,
            memory_bytes=request.chip.memory_bytes,
        ),
        checkpoints=checkpoints,
        storage_usd=storage,
        network_usd=network,
    )


def _utilisation(request: PlanRequest) -> tuple[float, str, UtilisationRange | None]:
    """MFU, where it comes from, and the published range if from there."""
    if request.observed_tokens_per_second is not None:
        observed = model_flops_utilisation(
            tokens_per_second=request.observed_tokens_per_second,
            flops_per_token=request.flops_per_token,
            chips=request.chips,
            peak_flops_per_second=request.peak_flops_per_second,
        )
        if observed > 1:
            raise ValueError(
                f"--observed-tokens-per-second = {request.observed_tokens_per_second:g}: that is "
                f"{observed:.0%} of the peak of {request.chips:,} {request.chip.slug}; it must be "
                "of all chips together, and chips and peak must be those of the observation."
            )
        return observed, "observed tokens per second", None
    if request.hfu is not None:
        check_fraction("hfu", request.hfu)
        share = request.model.hardware_share(request.recompute)
        return request.hfu / share, f"given HFU over {share:.3f} (recomputation)", None
    if request.mfu is not None:
        check_fraction("mfu", request.mfu)
        return request.mfu, request.mfu_source, None
    published = utilisation_range(request.chip, request.model.params_active, request.basis)
    source = f"median of {len(published.runs)} published bills ({published.basis})"
    return published.median, source, published


def _checkpoints(
    request: PlanRequest, memory: MemoryEstimate, cost: CostEstimate
) -> CheckpointPlan | None:
    try:
        return plan_checkpoints(
            checkpoint_bytes=memory.checkpoint_bytes,
            work_seconds=cost.wall_seconds * request.goodput,
            chips=request.chips,
            write_bytes_per_second=request.write_bytes_per_second,
            chip_mtbf_hours=request.chip_mtbf_hours,
            kept=request.checkpoints_kept,
        )
    except ValueError:  # failures come faster than checkpoints can be written
        return None


def _by_rate(
    request: PlanRequest, cost: CostEstimate, checkpoints: CheckpointPlan | None
) -> tuple[float | None, float | None]:
    """Storage and network in USD, each None without its rate."""
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
