"""Memory of a run by device and strategy: the ledger's account, and the budget gate's check."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from components.ledger.settings import LedgerSettings
from tokenmill.cost.devices import parallelism_of
from tokenmill.cost.memory import (
    RESERVED_SHARE,
    MemoryEstimate,
    estimate_memory,
    share_of_batch,
)
from tokenmill.cost.sharding import strategy_fits
from tokenmill.model.shape import ModelShape


def memory_of(shape: ModelShape, settings: LedgerSettings, devices: int) -> MemoryEstimate:
    """Memory on one device under data parallelism: its share of the batch, all of the model."""
    return estimate_memory(
        shape,
        batch_per_device=share_of_batch(
            settings.global_batch_size, devices, settings.accumulation_steps
        ),
        precision=settings.precision,
        recompute=settings.recompute,
        dropout=settings.dropout > 0,
        parallelism=parallelism_of(settings.chip),
    )


def memory_section(
    shape: ModelShape, settings: LedgerSettings, capacity_bytes: float | None
) -> dict[str, Any]:
    """The ledger's account of memory.

    Args:
        shape: The model.
        settings: Batch, devices, precision and strategy.
        capacity_bytes: Memory of a device; None if unknown.

    Returns:
        Bytes a device by part under the strategies of this product, which copy the whole model to
        each device; whether they fit; and all strategies that are usual, with the least number of
        devices that fits.
    """
    memory = memory_of(shape, settings, settings.devices)
    fits = strategy_fits(
        lambda devices: memory_of(shape, settings, devices),
        chips=settings.devices,
        n_layers=shape.n_layers,
        memory_bytes=capacity_bytes,
    )
    copied = fits[0]  # data parallel
    return {
        "strategy": settings.strategy,
        "precision": settings.precision,
        "recompute": settings.recompute,
        "devices": settings.devices,
        "sequences_per_device": share_of_batch(
            settings.global_batch_size, settings.devices, settings.accumulation_steps
        ),
        "bytes_by_part": memory.by_part(),
        "bytes_per_device": memory.total,
        "capacity_bytes": capacity_bytes,
        "reserved_share": RESERVED_SHARE,
        "fits": copied.fits,
        "smallest_device_count": copied.smallest_chips,
        "by_strategy": [asdict(fit) for fit in fits],
    }
