"""Interval of checkpoints, time lost to failures, and disk."""

from __future__ import annotations

from tokenmill.contracts.ledger import CheckpointPlan
from tokenmill.cost.checks import check_positive
from tokenmill.cost.pricing import (
    SECONDS_PER_HOUR,
    daly_interval_seconds,
    expected_loss_seconds,
    system_mtbf_seconds,
    young_interval_seconds,
)

# 419 unexpected interruptions (of 466) in 54 days on 16,384 H100: one in 50,677 chip-hours (Llama
# Team 2024, "The Llama 3 Herd of Models", arXiv 2407.21783, sec. 3.3.4).
CHIP_MTBF_HOURS = 50_677.0
# Ours, not measurements: one gigabyte a second from a host of eight chips; ten minutes to restart.
WRITE_BYTES_PER_SECOND_PER_CHIP = 1e9 / 8
RESTART_SECONDS = 600.0
CHECKPOINTS_KEPT = 2


def plan_checkpoints(
    *,
    checkpoint_bytes: int,
    work_seconds: float,
    chips: int,
    write_bytes_per_second: float | None = None,
    chip_mtbf_hours: float = CHIP_MTBF_HOURS,
    restart_seconds: float = RESTART_SECONDS,
    kept: int = CHECKPOINTS_KEPT,
) -> CheckpointPlan:
    """Plan the checkpoints of a run that any chip's failure stops.

    Args:
        checkpoint_bytes: Bytes of one checkpoint.
        work_seconds: Seconds of training proper.
        chips: Chips.
        write_bytes_per_second: Of all hosts together; None means 1 GB/s for each eight chips.
        chip_mtbf_hours: Mean hours between failures of one chip, with its share of the host.
        restart_seconds: From a failure until training goes on.
        kept: Checkpoints on disk at a time.

    Returns:
        The plan.

    Raises:
        ValueError: If a number is out of range, or the run could hardly ever end.
    """
    check_positive("checkpoint_bytes", checkpoint_bytes, "bytes")
    check_positive("work_seconds", work_seconds, "seconds")
    rate = write_bytes_per_second
    if rate is None:
        rate = WRITE_BYTES_PER_SECOND_PER_CHIP * max(chips, 8)
    check_positive("write_bytes_per_second", rate, "bytes per second")
    write = checkpoint_bytes / rate
    mtbf = system_mtbf_seconds(chip_mtbf_hours * SECONDS_PER_HOUR, chips)
    daly = daly_interval_seconds(write, mtbf)
    interval = min(daly, work_seconds)
    loss = expected_loss_seconds(
        work_seconds=work_seconds,
        interval_seconds=interval,
        write_seconds=write,
        mtbf_seconds=mtbf,
        restart_seconds=restart_seconds,
    )
    return CheckpointPlan(
        checkpoint_bytes=checkpoint_bytes,
        write_seconds=write,
        mtbf_seconds=mtbf,
        young_seconds=young_interval_seconds(write, mtbf),
        daly_seconds=daly,
        interval_seconds=interval,
        checkpoints=max(1, round(work_seconds / interval)),
        expected_failures=(work_seconds + loss.lost_seconds) / mtbf,
        lost_seconds=loss.lost_seconds,
        writing_seconds=loss.write_seconds,
        goodput=loss.goodput,
        disk_bytes=kept * checkpoint_bytes,
        source="Young 1974; Daly 2006; failure rate of a chip: cost.chip_mtbf_hours",
    )
