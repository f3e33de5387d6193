"""Memory of a plan by device and strategy, and how many chips it takes to fit."""

from __future__ import annotations

from typing import Any

from components.ledger.memory import RESERVED_SHARE, MemoryEstimate, Precision, estimate_memory
from components.model_shape import ModelShape

# Enough to say "none fits".
_MOST_CHIPS = 1 << 16


def memory_of(
    shape: ModelShape, global_batch_size: int, devices: int, precision: Precision
) -> MemoryEstimate:
    """Memory on one device under data parallelism: its share of the batch, all of the model."""
    return estimate_memory(
        shape,
        batch_per_device=max(1, -(-global_batch_size // devices)),
        precision=precision,
        dropout=False,
    )


def sharded_bytes(memory: MemoryEstimate, devices: int) -> float:
    """Bytes on one device if weights, gradients and moments were split over all of them.

    That is stage 3 of Rajbhandari et al. 2020 ("ZeRO"), sec. 5: their bytes over the number of
    devices; activations stay.
    """
    split = memory.weights + memory.gradients + memory.optimiser
    return memory.total - split + split / devices


def memory_section(
    shape: ModelShape,
    *,
    global_batch_size: int,
    devices: int,
    precision: Precision,
    strategy: str,
    capacity_bytes: float | None,
) -> dict[str, Any]:
    """The ledger's account of memory.

    Args:
        shape: The model.
        global_batch_size: Rows a step, over all devices.
        devices: Copies of the model.
        precision: Of weights and computation.
        strategy: The tf.distribute strategy; all of them copy the whole model to each device.
        capacity_bytes: Memory of a device; None if unknown.

    Returns:
        Bytes a device by part, whether they fit, and the least number of devices that does, for
        the strategies of this product (replicated) and for full sharding, which it has not.
    """
    memory = memory_of(shape, global_batch_size, devices, precision)
    usable = None if capacity_bytes is None else capacity_bytes * (1 - RESERVED_SHARE)

    def smallest(needs) -> int | None:
        if usable is None:
            return None
        count = 1
        while count <= _MOST_CHIPS:
            if needs(count) <= usable:
                # Doubling found an upper end; walk back by halving to the least.
                low, high = count // 2, count
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (low, middle) if needs(middle) <= usable else (middle, high)
                return high
            count *= 2
        return None

    def replicated(count: int) -> float:
        return memory_of(shape, global_batch_size, count, precision).total

    def sharded(count: int) -> float:
        return sharded_bytes(memory_of(shape, global_batch_size, count, precision), count)

    return {
        "strategy": strategy,
        "precision": precision,
        "devices": devices,
        "bytes_by_part": memory.by_part(),
        "bytes_per_device": memory.total,
        "capacity_bytes": capacity_bytes,
        "reserved_share": RESERVED_SHARE,
        "fits": None if usable is None else memory.total <= usable,
        "smallest_device_count": smallest(replicated),
        "fully_sharded": {
            "bytes_per_device": sharded_bytes(memory, devices),
            "fits": None if usable is None else sharded_bytes(memory, devices) <= usable,
            "smallest_device_count": smallest(sharded),
        },
    }
