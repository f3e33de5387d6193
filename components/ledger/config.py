"""The sections [cost] and [budget]: what the run is paid with, and its limits."""

from typing import Annotated, Literal

from pydantic import Field

from tokenmill.config_model import PositiveInt, Section
from tokenmill.cost.checkpoint_interval import CHIP_MTBF_HOURS, RESTART_SECONDS
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.pricing import HIDDEN_COST_HIGH, HIDDEN_COST_LOW
from tokenmill.cost.scaling import Goal


class CostConfig(Section):
    """What the run is paid with: the ledger's inputs."""

    chip: str = CPU_CHIP
    """A chip of data/catalog/hardware.csv."""
    chips: PositiveInt | Literal["auto"] = "auto"
    """How many; "auto" is every core of this machine, for cpu-vcpu."""
    peak_flops_per_second_per_chip: Annotated[float, Field(gt=0)] | None = None
    """Overrides the catalog; for cpu-vcpu without it, matrix products are timed here."""
    mfu: Annotated[float, Field(gt=0.0, le=1.0)] | Literal["auto", "measured"] = "auto"
    """Share of the peak that the training step reaches (model FLOPs utilization). "measured" trains
    for some seconds on this machine before the estimate; "auto" does so for cpu-vcpu and takes 0.4
    for other chips."""
    goodput: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the wall time that goes to steps that count."""
    price_usd_per_chip_hour: Annotated[float, Field(ge=0)] | None = None
    """Overrides the catalog's price."""
    price_date: str = ""
    """When that price was asked; a price without a date is flagged."""
    hidden_cost_multiplier_low: Annotated[float, Field(ge=1)] = HIDDEN_COST_LOW
    hidden_cost_multiplier_high: Annotated[float, Field(ge=1)] = HIDDEN_COST_HIGH
    """Storage, network, failed runs and people come to 2-5 times the bare compute."""
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
