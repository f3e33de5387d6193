"""The chips of a plan: their speed, their memory, their price."""

from __future__ import annotations

from dataclasses import dataclass

from data.catalog.chips import Chip
from tokenmill.cost.devices import CPU_CHIP, devices_of, parallelism_of
from tokenmill.cost.memory import Precision


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a run is computed on and paid for; units in the names.

    Attributes:
        chip: The chip.
        chips: How many.
        precision: Of weights and computation.
        peak_flops_per_second: Dense peak of one chip in that precision.
        price_usd_per_chip_hour: None where no price is known.
        price_label: Who asks that price, and when.
        mfu: Model FLOPs utilization; None means a range from published runs.
        mfu_source: Where it comes from, in words.
        hfu: Hardware FLOPs utilization, in place of ``mfu``.
        observed_tokens_per_second: Of all chips together, in place of ``mfu``.
        goodput: Share of the wall time that trains.
        machine_memory_bytes: Memory of this machine, for a CPU; None if unknown.
    """

    chip: Chip
    chips: int = 1
    precision: Precision = "mixed_bfloat16"
    peak_flops_per_second: float
    price_usd_per_chip_hour: float | None
    price_label: str = "given"
    mfu: float | None = None
    mfu_source: str = "given"
    hfu: float | None = None
    observed_tokens_per_second: float | None = None
    goodput: float = 1.0
    machine_memory_bytes: int | None = None

    @property
    def devices(self) -> int:
        """Chips that memory is counted on: the cores of a CPU are one."""
        return devices_of(self.chip.slug, self.chips)

    @property
    def parallelism(self) -> int:
        """Parts of a device's batch that are computed side by side, at most."""
        return parallelism_of(self.chip.slug)

    @property
    def memory_bytes(self) -> int | None:
        """Memory of one chip, bytes (of a CPU: of the machine); None if unknown."""
        return self.machine_memory_bytes if self.chip.slug == CPU_CHIP else self.chip.memory_bytes
