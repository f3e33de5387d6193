"""What a training may cost: the one thing that a new price or budget changes for the Trainer.

The file's path is an execution property of the steps that write and read it; what is in it is not,
so that a new price does not train anew. A local run writes it when it starts, a compiled pipeline's
TokenLedger writes it from the parameters of the run.
"""

from __future__ import annotations

from typing import Literal

from tokenmill.contracts.base import Document, key, read_document, write_document
from tokenmill.cost.pricing import SECONDS_PER_HOUR

LIMITS_NAME = "limits.json"


class TrainingLimits(Document):
    """limits.json: price and budget of a training."""

    usd_per_chip_hour: float = key("USD for one chip for one hour.", ge=0)
    chips: int = key("Number of chips.", gt=0)
    peak_flops_per_second: float | None = key(
        "Of all chips together, FLOP/s; null times matrix products on the machine."
    )
    max_usd: float | None = key("Most that training may cost, USD; null for no limit.")
    max_hours: float | None = key("Most that training may last, hours; null for no limit.")
    on_overrun: Literal["warn", "stop"] = key("What to do when the projected end is over a limit.")

    @property
    def usd_per_second(self) -> float:
        """Price of all chips together, USD a second."""
        return self.usd_per_chip_hour * self.chips / SECONDS_PER_HOUR


def read_limits(path: str) -> TrainingLimits:
    """Read limits.json."""
    return read_document(path, TrainingLimits)


def write_limits(path: str, limits: TrainingLimits) -> None:
    """Write limits.json."""
    write_document(path, limits)
