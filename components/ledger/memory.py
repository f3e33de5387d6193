"""Memory of a run by device and strategy, for the ledger and for the budget gate."""

from __future__ import annotations

from components.ledger.config import LedgerJob
from data.catalog.chips import find_chip
from tokenmill.contracts.ledger import Memory
from tokenmill.cost.devices import CPU_CHIP, parallelism_of
from tokenmill.cost.memory import (
    RESERVED_SHARE,
    MemoryEstimate,
    estimate_memory,
    kv_cache_bytes,
    share_of_batch,
)
from tokenmill.cost.sharding import (
    Exchanged,
    Experts,
    Strategy,
    shard_memory,
    strategy_fits,
)
from tokenmill.model.shape import ModelShape


def _devices_per_machine(settings: LedgerJob) -> int | None:
    if settings.chip != CPU_CHIP:
        return find_chip(settings.chip).chips_per_machine
    each, uneven = divmod(settings.workers, settings.machines)
    return None if uneven else each


def memory_per_device(shape: ModelShape, settings: LedgerJob, devices: int) -> MemoryEstimate:
    """Estimate the memory of one device, which has its share of the batch and all of the model."""
    return estimate_memory(
        shape,
        batch_per_device=share_of_batch(
            settings.global_batch_size, devices, settings.accumulation_steps
        ),
        precision=settings.precision,
        recompute=settings.recompute,
        dropout=settings.dropout > 0,
        parallelism=parallelism_of(settings.chip),
        on_cpu=settings.chip == CPU_CHIP,
        lora=settings.lora,
    )


def run_memory(
    shape: ModelShape,
    settings: LedgerJob,
    capacity_bytes: float | None,
    process_bytes: int | None = None,
) -> Memory:
    """Estimate the memory that a run takes, and compare the ways to spread its model.

    Args:
        shape: The model.
        settings: Batch, devices, precision and strategy.
        capacity_bytes: Memory of a device; None if unknown.
        process_bytes: Of a CPU, what the Calibrator's process held at most; None if not measured.

    Returns:
        Bytes a device by part under the strategy of the run, which copies the whole model to each
        device, or with train.zero all of it but the moments, and with train.expert_parallel but
        the experts; whether they fit; and all strategies that are usual, with the least number of
        devices that fits.
    """
    strategy: Strategy = settings.spreading
    experts = Experts.of(shape, settings.lora)
    on_cpu = settings.chip == CPU_CHIP
    whole = memory_per_device(shape, settings, settings.devices)
    memory = shard_memory(whole, strategy, settings.devices, shape.layers, experts)
    copied = whole.checkpoint_bytes
    beside = copied if on_cpu else 0
    fits = strategy_fits(
        lambda devices: memory_per_device(shape, settings, devices),
        chips=settings.devices,
        layers=shape.layers,
        memory_bytes=capacity_bytes,
        beside_bytes=beside,
        exchanged_of=lambda devices: Exchanged.of(
            shape,
            share_of_batch(settings.global_batch_size, devices),
            settings.precision,
        ),
        experts=experts,
        chips_per_machine=_devices_per_machine(settings),
    )
    of_run = next(fit for fit in fits if fit.strategy == strategy)
    room = None if capacity_bytes is None else capacity_bytes * (1 - RESERVED_SHARE)
    return Memory(
        strategy=settings.strategy,
        zero=settings.zero,
        expert_parallel=settings.expert_parallel,
        precision=settings.precision,
        recompute=settings.recompute,
        devices=settings.devices,
        sequences_per_device=share_of_batch(
            settings.global_batch_size, settings.devices, settings.accumulation_steps
        ),
        bytes_by_part=memory.by_part(),
        bytes_per_device=memory.total,
        capacity_bytes=capacity_bytes,
        reserved_share=RESERVED_SHARE,
        process_bytes=process_bytes,
        checkpoint_copy_bytes=copied,
        fits=(
            of_run.fits if process_bytes is None or room is None else process_bytes + beside <= room
        ),
        smallest_device_count=of_run.smallest_chips,
        by_strategy=fits,
        kv_cache_bytes_per_token=kv_cache_bytes(shape, tokens=1) if shape.causal else None,
    )
