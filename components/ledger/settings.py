"""What the ledger is told: the model, the training plan, the price, the limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data.catalog.chips import Price
from tokenmill.cost.checkpoint_interval import CHECKPOINTS_KEPT, CHIP_MTBF_HOURS, RESTART_SECONDS
from tokenmill.cost.devices import ASSUMED_CPU_MFU, MfuSource, devices_of
from tokenmill.cost.flops import Recompute
from tokenmill.cost.memory import Precision
from tokenmill.cost.scaling import Goal
from tokenmill.cost.utilization import UtilizationRange


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits; None for none. Units in the names."""

    max_usd: float | None = None
    max_hours: float | None = None
    min_effective_tokens: float | None = None
    max_epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """Storage, network and failures.

    Attributes:
        storage_usd_per_gb_month: Of 1e9 bytes kept for a month.
        storage_months: How long artifacts are kept.
        network_usd_per_gb: Of 1e9 bytes moved.
        chip_mtbf_hours: Mean time between failures of one chip, hours.
        checkpoint_bytes_per_second: Writing speed of checkpoints, all hosts together; None means
            1e9 for each eight chips.
        checkpoints_kept: How many lie on disk at a time.
        restart_seconds: From a failure until training goes on.
    """

    storage_usd_per_gb_month: float = 0.02
    storage_months: float = 1.0
    network_usd_per_gb: float = 0.0
    chip_mtbf_hours: float = CHIP_MTBF_HOURS
    checkpoint_bytes_per_second: float | None = None
    checkpoints_kept: int = CHECKPOINTS_KEPT
    restart_seconds: float = RESTART_SECONDS


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """Keys and units as in the configuration.

    Attributes:
        mfu: A fraction that the user gave; None if it is measured
            (components/train/calibrate.py) or of published runs.
        published_mfu: What published runs on such chips reached at such a size, where neither
            given nor measured.
        peak_flops_per_second_per_chip: None for a CPU, whose matrix products are timed.
        memory_bytes_per_chip: None for a CPU, whose own memory counts.
        vcpu_price_usd_per_hour: Of one core, for the steps that run on CPUs.
    """

    shape: dict[str, Any]
    strategy: str
    precision: Precision
    global_batch_size: int
    epochs: float
    max_steps: int | None
    chip: str
    chips: int
    peak_flops_per_second_per_chip: float | None
    memory_bytes_per_chip: int | None
    mfu: float | None
    goodput: float
    price: Price
    vcpu_price_usd_per_hour: float
    hidden_cost_multiplier_low: float
    hidden_cost_multiplier_high: float
    published_mfu: UtilizationRange | None = None
    recompute: Recompute = "none"
    dropout: float = 0.0
    accumulation_steps: int = 1
    goal: Goal = "from_scratch"
    budget: Budget = field(default_factory=Budget)
    hosting: Hosting = field(default_factory=Hosting)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LedgerSettings:
        """The settings from what `dataclasses.asdict` gave."""
        parts: dict[str, Any] = {
            "price": Price(**values["price"]),
            "budget": Budget(**values["budget"]),
            "hosting": Hosting(**values["hosting"]),
        }
        published = values.get("published_mfu")
        if published is not None:
            parts["published_mfu"] = UtilizationRange(
                **{**published, "runs": tuple(published["runs"])}
            )
        return cls(**{**values, **parts})

    @property
    def devices(self) -> int:
        """Copies of the model: the cores of a CPU share one."""
        return devices_of(self.chip, self.chips)

    def expected_mfu(self, calibrated: float | None) -> tuple[float, MfuSource]:
        """The MFU of the steps and where it comes from.

        Args:
            calibrated: As measured on this machine; None without a measurement.
        """
        if self.mfu is not None:
            return self.mfu, "configured"
        if calibrated is not None:
            return min(calibrated, 1.0), "measured"
        if self.published_mfu is not None:
            return self.published_mfu.median, "published"
        return ASSUMED_CPU_MFU, "assumed"
