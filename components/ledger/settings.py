"""What the ledger is told: the model, the training plan, the price, the limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CPU_CHIP = "cpu-vcpu"
# The source of a price that the user gave.
USER_PRICE = "cost.price_usd_per_chip_hour"
# Without a measurement: what well-run training reaches (design.md section 3, PaLM: 46.2 %).
DEFAULT_MFU = 0.4
# Llama 3 (Dubey et al. 2024, arXiv 2407.21783, section 3.3.4): 419 unexpected interruptions in 54
# days on 16,384 GPUs are one in 16384 * 54 * 24 / 419 chip-hours.
CHIP_MTBF_HOURS = 50_677.0


@dataclass(frozen=True, kw_only=True)
class Price:
    """A price per chip-hour and where it comes from.

    Attributes:
        usd_per_chip_hour: USD for one chip for one hour.
        provider: Who asks it, and in which region.
        date: When; empty if the user gave none.
        source: Where it stands.
    """

    usd_per_chip_hour: float
    provider: str
    date: str
    source: str


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
        checkpoint_bytes_per_second: Writing speed of checkpoints.
        checkpoints_kept: How many lie on disk at a time.
        restart_seconds: From a failure until training goes on.
    """

    storage_usd_per_gb_month: float = 0.02
    storage_months: float = 1.0
    network_usd_per_gb: float = 0.0
    chip_mtbf_hours: float = CHIP_MTBF_HOURS
    checkpoint_bytes_per_second: float = 200e6
    checkpoints_kept: int = 2
    restart_seconds: float = 300.0


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """Keys and units as in the configuration.

    Attributes:
        mfu: A fraction; None if it is measured (components/ledger/calibrate.py).
        peak_flops_per_second_per_chip: None for a CPU, whose matrix products are timed.
        memory_bytes_per_chip: None for a CPU, whose own memory counts.
        vcpu_price_usd_per_hour: Of one core, for the steps that run on CPUs.
    """

    shape: dict[str, Any]
    strategy: str
    precision: str
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
    goal: str = "from_scratch"
    budget: Budget = field(default_factory=Budget)
    hosting: Hosting = field(default_factory=Hosting)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LedgerSettings:
        """The settings from what `dataclasses.asdict` gave."""
        parts = {
            "price": Price(**values["price"]),
            "budget": Budget(**values["budget"]),
            "hosting": Hosting(**values["hosting"]),
        }
        return cls(**{**values, **parts})

    @property
    def devices(self) -> int:
        """Copies of the model: the cores of a CPU share one."""
        return 1 if self.chip == CPU_CHIP else self.chips
