"""The sections [cost] and [budget]: what the run is paid with, and its limits."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from data.catalog.chips import Chip, Price, find_chip
from tokenmill.config_model import PositiveInt, Section
from tokenmill.contracts.ladder import LadderLaw
from tokenmill.contracts.ledger import MeasuredValue
from tokenmill.contracts.training_limits import TrainingLimits
from tokenmill.cost.checkpoint_interval import CHECKPOINTS_KEPT, CHIP_MTBF_HOURS, RESTART_SECONDS
from tokenmill.cost.devices import ASSUMED_CPU_MFU, CPU_CHIP, USER_PRICE, MfuSource, devices_of
from tokenmill.cost.flops import Recompute
from tokenmill.cost.pricing import HIDDEN_COST_HIGH, HIDDEN_COST_LOW
from tokenmill.cost.scaling import Goal
from tokenmill.cost.utilization import UtilizationRange, utilization_range
from tokenmill.errors import TokenmillError
from tokenmill.machine import vcpus
from tokenmill.model.shape import ModelShape
from tokenmill.training_plan import TrainingPlan


class CostConfig(Section):
    """What the run is paid with: the ledger's inputs."""

    chip: str = CPU_CHIP
    """A chip of data/catalog/hardware.csv."""
    chips: PositiveInt | Literal["auto"] = "auto"
    """How many; "auto" is every core of this machine, for cpu-vcpu; with train.strategy
    multi_worker of as many such machines as train."""
    peak_flops_per_second_per_chip: Annotated[float, Field(gt=0)] | None = None
    """Overrides the catalog; for cpu-vcpu without it, matrix products are timed here."""
    mfu: Annotated[float, Field(gt=0.0, le=1.0)] | Literal["auto", "measured"] = "auto"
    """Share of the peak that the training step reaches (model FLOPs utilization). "measured" trains
    for some seconds on this machine before the estimate; "auto" does so for cpu-vcpu, and for other
    chips takes the median of published runs on such chips and sizes."""
    goodput: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the wall time that goes to steps that count."""
    price_usd_per_chip_hour: Annotated[float, Field(ge=0)] | None = None
    """Overrides the catalog's price."""
    price_date: str = ""
    """When that price was asked; a price without a date is flagged."""
    hidden_cost_multiplier_low: Annotated[float, Field(ge=1)] = HIDDEN_COST_LOW
    """Least multiple of the bare compute that everything costs, with storage, network, failed runs
    and people; the low end of the line "with hidden costs"."""
    hidden_cost_multiplier_high: Annotated[float, Field(ge=1)] = HIDDEN_COST_HIGH
    """The high end: storage, network, failed runs and people come to 2-5 times the bare compute."""
    goal: Goal = "from_scratch"
    """What the model is for: how many tokens the guidance asks for."""
    storage_usd_per_gb_month: Annotated[float, Field(ge=0)] = 0.02
    """Of 1e9 bytes for a month. Google Cloud Storage's list price, standard, us-central1: $0.020
    (cloud.google.com/storage/pricing, as archived 2022-12-30)."""
    storage_months: Annotated[float, Field(ge=0)] = 1.0
    """How long corpus, rows, checkpoints and model are kept."""
    network_usd_per_gb: Annotated[float, Field(ge=0)] = 0.0
    """Of moving them once; nothing within a region."""
    chip_mtbf_hours: Annotated[float, Field(gt=0)] = CHIP_MTBF_HOURS
    """Mean time between failures of a chip (Llama 3: 419 unexpected interruptions in 54 days on
    16,384 GPUs; arXiv 2407.21783, sec. 3.3.4)."""
    checkpoint_bytes_per_second: Annotated[float, Field(gt=0)] | None = None
    """How fast a checkpoint is written, all hosts together; None is 1e9 for each eight chips."""
    restart_seconds: Annotated[float, Field(ge=0)] = RESTART_SECONDS
    """From a failure until training goes on."""
    ladder: str | None = None
    """A ladder.json of `tokenmill ladder` on this text: the ledger says what loss its law expects
    of the run, with an interval."""
    value: str | None = None
    """A value.json of `tokenmill value` in which this very configuration of the text was compared
    with another: the ledger prints what its tokens are worth as they were measured."""


class BudgetConfig(Section):
    """Limits of training: over one of the first four, the run stops before the Trainer."""

    max_usd: Annotated[float, Field(ge=0)] | None = None
    """Most that training may cost, USD of compute."""
    max_hours: Annotated[float, Field(ge=0)] | None = None
    """Most that training may last, hours of wall time."""
    min_effective_tokens: Annotated[float, Field(ge=0)] | None = None
    """Least effective tokens that are worth training on."""
    max_epochs: Annotated[float, Field(gt=0)] | None = None
    """Most passes over the rows."""
    on_overrun: Literal["warn", "stop"] = "warn"
    """During training, when the projected end is over max_usd or max_hours: say so, or stop."""


class LedgerJob(CostConfig, TrainingPlan):
    """What the ledger is told: money, machine and training plan, with facts of the catalog.

    Keys and units are those of the sections; what "auto" stood for is a number here.
    """

    chips: PositiveInt
    peak_flops_per_second_per_chip: float | None
    """None for a CPU, whose matrix products are timed."""
    given_mfu: float | None
    """What the user gave; None if it is measured (the Calibrator) or of published runs."""
    shape: ModelShape
    price: Price
    budget: BudgetConfig = BudgetConfig()
    memory_bytes_per_chip: int | None = None
    """None for a CPU, whose own memory counts."""
    vcpu_price_usd_per_hour: float = 0.0
    """Of one core, for the steps that run on CPUs."""
    published_mfu: UtilizationRange | None = None
    """What published runs on such chips reached at such a size."""
    law: LadderLaw | None = None
    """What the file cost.ladder holds; None without it."""
    measured: MeasuredValue | None = None
    """What the file cost.value says of this configuration; None without it."""
    checkpoints_kept: PositiveInt = CHECKPOINTS_KEPT
    workers: PositiveInt = 1
    """Processes that train together (strategy multi_worker): on CPUs each has a copy of the
    model."""
    machines: PositiveInt = 1
    """Machines that they are on, taken to be alike."""

    @property
    def needs_calibration(self) -> bool:
        """Whether the MFU has to be measured on the machine that trains."""
        return self.given_mfu is None and self.published_mfu is None

    @property
    def devices(self) -> int:
        """Copies of the model: the cores of a CPU share one for each worker."""
        return devices_of(self.chip, self.chips, self.workers)

    @property
    def recompute(self) -> Recompute:
        """Which activations are computed again in the backward pass."""
        return "full" if self.rematerialize else "none"

    @property
    def training_limits(self) -> TrainingLimits:
        """What the Trainer has to know of price and budget."""
        peak = self.peak_flops_per_second_per_chip
        return TrainingLimits(
            usd_per_chip_hour=self.price.usd_per_chip_hour,
            chips=self.chips,
            peak_flops_per_second=None if peak is None else peak * self.chips,
            max_usd=self.budget.max_usd,
            max_hours=self.budget.max_hours,
            on_overrun=self.budget.on_overrun,
        )

    def expected_mfu(self, calibrated: float | None) -> tuple[float, MfuSource]:
        """Return the MFU of the steps and where it comes from.

        Args:
            calibrated: As measured on this machine; None without a measurement.
        """
        if self.given_mfu is not None:
            return self.given_mfu, "configured"
        if calibrated is not None:
            return min(calibrated, 1.0), "measured"
        if self.published_mfu is not None:
            return self.published_mfu.median, "published"
        return ASSUMED_CPU_MFU, "assumed"

    def with_parameters(self, given: Mapping[str, Any]) -> "LedgerJob":
        """Return the job with the parameters of one run of a compiled pipeline in place.

        Args:
            given: What `given_parameters` returns.
        """
        changed = dict(given)
        limits: dict[str, float | None] = {
            name: changed.pop(name) for name in ("max_usd", "max_hours") if name in changed
        }
        changed["budget"] = self.budget.model_copy(update=limits)
        price = changed.pop("price_usd_per_chip_hour", None)
        if price is not None and price != self.price.usd_per_chip_hour:
            changed["price"] = Price(
                usd_per_chip_hour=price,
                provider="the run's parameters",
                date="",
                source=USER_PRICE,
            )
            if self.chip == CPU_CHIP:
                changed["vcpu_price_usd_per_hour"] = price
        return self.model_copy(update=changed)


def make_ledger_job(
    cost: CostConfig,
    budget: BudgetConfig,
    plan: TrainingPlan,
    shape: ModelShape,
    checkpoints_kept: int,
    law: LadderLaw | None = None,
    measured: MeasuredValue | None = None,
    workers: int = 1,
    machines: int = 1,
) -> LedgerJob:
    """Fill the catalog's facts of the chip into the sections.

    Args:
        cost: The section.
        budget: The section.
        plan: Of the training.
        shape: The model.
        checkpoints_kept: execution.keep_checkpoints.
        law: Of cost.ladder; None without it.
        measured: Of cost.value; None without it.
        workers: Processes that train together.
        machines: Machines that they are on.

    Raises:
        TokenmillError: The chip is unknown, or has no price or number and none was given.
    """
    try:
        chip = find_chip(cost.chip)
    except ValueError as error:
        raise TokenmillError(f"cost.chip: {error}") from None
    chips = cost.chips
    is_this_cpu = chip.slug == CPU_CHIP
    if chips == "auto":
        if not is_this_cpu:
            raise TokenmillError(
                f'cost.chips = "auto" counts this machine\'s cores; {chip.slug} needs a number.',
                "Set cost.chips.",
            )
        chips = vcpus() * machines
    peak = cost.peak_flops_per_second_per_chip
    if peak is None and not is_this_cpu:
        peak = chip.peak_for(plan.precision)
        if peak is None:
            raise TokenmillError(
                f"the catalog has no peak for {chip.slug}.",
                "Set cost.peak_flops_per_second_per_chip.",
            )
    mfu = cost.mfu if isinstance(cost.mfu, float) else None
    published = None
    if cost.mfu == "auto" and not is_this_cpu:
        published = utilization_range(chip, shape.params_active, sparse=shape.is_sparse)
    if mfu is None and published is None and plan.strategy == "multi_worker":
        raise TokenmillError(
            f'cost.mfu = "{cost.mfu}" times training in one process, which train.strategy = '
            '"multi_worker" is not.',
            "Give cost.mfu as a number: what an earlier run reached (tokenmill runs), or 0.4.",
        )
    price = _price(cost, chip)
    vcpu_price = price.usd_per_chip_hour
    if not is_this_cpu:
        vcpu_price = find_chip(CPU_CHIP).price_usd_per_chip_hour or 0.0
    resolved = {
        "chip": chip.slug,
        "chips": chips,
        "peak_flops_per_second_per_chip": peak,
        "given_mfu": mfu,
    }
    return LedgerJob(
        **{
            **cost.model_dump(),
            **plan.model_dump(include=set(TrainingPlan.model_fields)),
            **resolved,
        },
        shape=shape,
        price=price,
        budget=budget,
        memory_bytes_per_chip=chip.memory_bytes,
        vcpu_price_usd_per_hour=vcpu_price,
        published_mfu=published,
        checkpoints_kept=checkpoints_kept,
        law=law,
        measured=measured,
        workers=workers,
        machines=machines,
    )


def _price(cost: CostConfig, chip: Chip) -> Price:
    if cost.price_usd_per_chip_hour is not None:
        return Price(
            usd_per_chip_hour=cost.price_usd_per_chip_hour,
            provider="the configuration",
            date=cost.price_date,
            source=USER_PRICE,
        )
    if not chip.prices:
        raise TokenmillError(
            f"the catalog has no price for {chip.slug}.", "Set cost.price_usd_per_chip_hour."
        )
    return chip.prices[0]
