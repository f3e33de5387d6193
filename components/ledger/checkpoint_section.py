"""How often to save, what is lost to failures, and what saving takes on disk."""

from __future__ import annotations

from typing import Any

from components.ledger.memory import MemoryEstimate
from components.ledger.money import (
    SECONDS_PER_HOUR,
    daly_interval_seconds,
    expected_loss_seconds,
    system_mtbf_seconds,
    young_interval_seconds,
)
from components.ledger.settings import Hosting


def checkpoint_plan(
    memory: MemoryEstimate, work_seconds: float, chips: int, hosting: Hosting
) -> dict[str, Any]:
    """Young's and Daly's interval for this run, with its price in time and disk.

    Args:
        memory: Says what a checkpoint holds.
        work_seconds: Training proper, seconds.
        chips: Number of chips, any of which stops the run when it fails.
        hosting: Writing speed, mean time between failures, restart time, checkpoints kept.

    Returns:
        Units in the names. `checkpoints` is 1 where the run is shorter than the interval.
    """
    size = memory.checkpoint_bytes
    write = size / hosting.checkpoint_bytes_per_second
    mtbf = system_mtbf_seconds(hosting.chip_mtbf_hours * SECONDS_PER_HOUR, chips)
    daly = daly_interval_seconds(write, mtbf)
    interval = min(daly, max(work_seconds, write))
    loss = expected_loss_seconds(
        work_seconds=work_seconds,
        interval_seconds=interval,
        write_seconds=write,
        mtbf_seconds=mtbf,
        restart_seconds=hosting.restart_seconds,
    )
    return {
        "checkpoint_bytes": size,
        "write_seconds": write,
        "mtbf_seconds": mtbf,
        "young_interval_seconds": young_interval_seconds(write, mtbf),
        "daly_interval_seconds": daly,
        "interval_seconds": interval,
        "checkpoints": max(1, round(work_seconds / interval)),
        "expected_failures": work_seconds / mtbf,
        "expected_lost_seconds": loss.rework_seconds,
        "expected_write_seconds": loss.write_seconds,
        "goodput": loss.goodput,
        "disk_bytes": size * hosting.checkpoints_kept,
        "source": "Young 1974; Daly 2006; failure rate of a chip: cost.chip_mtbf_hours",
    }
