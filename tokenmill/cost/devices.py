"""Facts of devices beside the catalog: this machine's CPU is one of them."""

from __future__ import annotations

from typing import Literal

MfuSource = Literal["configured", "measured", "published", "assumed"]

CPU_CHIP = "cpu-vcpu"
# Parts of a batch that a CPU computes side by side, at most, each with gradients and logits of its
# own in memory (components/train/distributed/cpu_parallelism.py). Not the number of cores: the
# order of summation, and with it the bits of the weights, should be the same on every machine.
CPU_PARALLELISM = 4
# The source of a price that the user gave.
USER_PRICE = "cost.price_usd_per_chip_hour"
# Of a CPU before it is measured: no more than an assumption, and called so.
ASSUMED_CPU_MFU = 0.4


def devices_of(chip: str, chips: int, workers: int = 1) -> int:
    """Return the number of copies of the model in data parallelism.

    Args:
        chip: Slug of the catalog.
        chips: How many; the cores of a CPU share one copy.
        workers: Processes that train together.
    """
    return workers if chip == CPU_CHIP else chips


def parallelism_of(chip: str) -> int:
    """Return how many parts of a device's batch are computed side by side, at most.

    Args:
        chip: Slug of the catalog.
    """
    return CPU_PARALLELISM if chip == CPU_CHIP else 1
