"""Time and money of a run, and how often to save it.

Prices are per *chip*-hour. A cloud often prices a machine or a pod: divide by its chips first.
Chip-hours depend on FLOPs, peak and utilization but not on the number of chips, which only
shortens the wait (as long as utilization holds, which it does not for ever).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenmill.cost.checks import check_fraction, check_positive

SECONDS_PER_HOUR = 3600.0
TOKENS_PER_MILLION = 1e6
# Storage, network, failed runs and people together, as a multiple of the compute bill: common
# experience, not a measurement. Always shown as a line of its own.
HIDDEN_COST_LOW = 2.0
HIDDEN_COST_HIGH = 5.0


def wall_seconds(
    *,
    total_flops: float,
    chips: int,
    peak_flops_per_second: float,
    mfu: float,
    goodput: float = 1.0,
) -> float:
    """Estimate the seconds from start to end of a run.

    Args:
        total_flops: Model FLOPs of the run with MFU (or hardware FLOPs with HFU).
        chips: Number of chips.
        peak_flops_per_second: Dense peak of one chip in the precision used.
        mfu: Model FLOPs utilization, a fraction.
        goodput: Share of the wall time that trains: the rest is checkpoints, restarts, lost work.

    Returns:
        Seconds: FLOPs / (chips · peak · MFU) / goodput.
    """
    check_positive("total_flops", total_flops, "FLOPs", zero_ok=True)
    check_positive("chips", chips, "chips")
    check_positive("peak_flops_per_second", peak_flops_per_second, "FLOP/s")
    check_fraction("mfu", mfu)
    check_fraction("goodput", goodput)
    return total_flops / (chips * peak_flops_per_second * mfu) / goodput


def chip_hours(
    *, total_flops: float, peak_flops_per_second: float, mfu: float, goodput: float = 1.0
) -> float:
    """Estimate the chip-hours of a run: the hours that one chip would take.

    Args:
        total_flops: Model FLOPs of the run.
        peak_flops_per_second: Dense peak of one chip.
        mfu: Model FLOPs utilization, a fraction.
        goodput: Share of the wall time that trains.

    Returns:
        Chip-hours.
    """
    seconds = wall_seconds(
        total_flops=total_flops,
        chips=1,
        peak_flops_per_second=peak_flops_per_second,
        mfu=mfu,
        goodput=goodput,
    )
    return seconds / SECONDS_PER_HOUR


def compute_usd(hours: float, price_usd_per_chip_hour: float) -> float:
    """Compute the bare compute bill.

    Args:
        hours: Chip-hours.
        price_usd_per_chip_hour: USD for one chip for one hour; zero for a chip of one's own.

    Returns:
        USD.
    """
    check_positive("chip_hours", hours, "chip-hours", zero_ok=True)
    check_positive(
        "price_usd_per_chip_hour", price_usd_per_chip_hour, "USD per chip-hour", zero_ok=True
    )
    return hours * price_usd_per_chip_hour


def usd_per_million_tokens(usd: float, tokens: float) -> float:
    """Compute the price of a million tokens.

    Args:
        usd: USD spent.
        tokens: Tokens they bought; say which (processed, effective).

    Returns:
        USD per million tokens.
    """
    check_positive("usd", usd, "USD", zero_ok=True)
    check_positive("tokens", tokens, "tokens")
    return usd / tokens * TOKENS_PER_MILLION


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Time and money of a run.

    Attributes:
        total_flops: Model FLOPs.
        wall_seconds: Seconds from start to end.
        chip_hours: Chip-hours on the bill.
        compute_usd: Bare compute bill, USD.
        total_usd_low: Compute bill times the low hidden-cost multiplier, USD.
        total_usd_high: Compute bill times the high multiplier, USD.
        usd_per_million_effective_tokens: Bare compute bill over effective tokens, times a million;
            hidden costs are never mixed in.
    """

    total_flops: float
    wall_seconds: float
    chip_hours: float
    compute_usd: float
    total_usd_low: float
    total_usd_high: float
    usd_per_million_effective_tokens: float

    @property
    def wall_hours(self) -> float:
        """Hours from start to end."""
        return self.wall_seconds / SECONDS_PER_HOUR

    @property
    def hidden_usd_low(self) -> float:
        """The low hidden-cost line: total less compute, USD."""
        return self.total_usd_low - self.compute_usd

    @property
    def hidden_usd_high(self) -> float:
        """The high hidden-cost line: total less compute, USD."""
        return self.total_usd_high - self.compute_usd


def estimate_cost(
    *,
    total_flops: float,
    effective_tokens: float,
    chips: int,
    peak_flops_per_second: float,
    mfu: float,
    price_usd_per_chip_hour: float,
    goodput: float = 1.0,
    hidden_multiplier_low: float = HIDDEN_COST_LOW,
    hidden_multiplier_high: float = HIDDEN_COST_HIGH,
) -> CostEstimate:
    """Estimate time and money of a run.

    Args:
        total_flops: Model FLOPs of all processed tokens.
        effective_tokens: Loss tokens after curation, discounted for repetition.
        chips: Number of chips.
        peak_flops_per_second: Dense peak of one chip in the precision used.
        mfu: Model FLOPs utilization, a fraction.
        price_usd_per_chip_hour: USD for one chip for one hour.
        goodput: Share of the wall time that trains.
        hidden_multiplier_low: Least that everything costs, as a multiple of the compute bill.
        hidden_multiplier_high: Most that everything costs, likewise.

    Returns:
        The estimate.

    Raises:
        ValueError: If a number is out of range, such as a multiplier below 1.
    """
    if not 1 <= hidden_multiplier_low <= hidden_multiplier_high < math.inf:
        raise ValueError(
            f"hidden_multiplier_low, _high = {hidden_multiplier_low!r}, {hidden_multiplier_high!r}:"
            " expected 1 <= low <= high, multiples of the compute bill; write 1 for no hidden cost."
        )
    seconds = wall_seconds(
        total_flops=total_flops,
        chips=chips,
        peak_flops_per_second=peak_flops_per_second,
        mfu=mfu,
        goodput=goodput,
    )
    hours = chip_hours(
        total_flops=total_flops,
        peak_flops_per_second=peak_flops_per_second,
        mfu=mfu,
        goodput=goodput,
    )
    bill = compute_usd(hours, price_usd_per_chip_hour)
    return CostEstimate(
        total_flops=total_flops,
        wall_seconds=seconds,
        chip_hours=hours,
        compute_usd=bill,
        total_usd_low=bill * hidden_multiplier_low,
        total_usd_high=bill * hidden_multiplier_high,
        usd_per_million_effective_tokens=usd_per_million_tokens(bill, effective_tokens),
    )


def system_mtbf_seconds(chip_mtbf_seconds: float, chips: int) -> float:
    """Return the mean time between failures of a run that any chip's failure stops.

    Args:
        chip_mtbf_seconds: Mean time between failures of one chip, with its share of the host.
        chips: Number of chips.

    Returns:
        Seconds: the chip's over the number of chips (independent, exponential failures).
    """
    check_positive("chip_mtbf_seconds", chip_mtbf_seconds, "seconds")
    check_positive("chips", chips, "chips")
    return chip_mtbf_seconds / chips


def young_interval_seconds(write_seconds: float, mtbf_seconds: float) -> float:
    """Return the time to train between checkpoints, to first order.

    Args:
        write_seconds: δ, seconds that training stands still for one checkpoint.
        mtbf_seconds: M, mean time between failures of the whole run.

    Returns:
        Seconds: sqrt(2·δ·M) (Young 1974).
    """
    check_positive("write_seconds", write_seconds, "seconds")
    check_positive("mtbf_seconds", mtbf_seconds, "seconds")
    return math.sqrt(2 * write_seconds * mtbf_seconds)


def daly_interval_seconds(write_seconds: float, mtbf_seconds: float) -> float:
    """Return the time to train between checkpoints, to higher order.

    Args:
        write_seconds: δ, seconds that training stands still for one checkpoint.
        mtbf_seconds: M, mean time between failures of the whole run.

    Returns:
        Seconds: sqrt(2·δ·M)·(1 + sqrt(x)/3 + x/9) − δ with x = δ/(2·M), or M from δ = 2·M on
        (Daly 2006, eq. 37).
    """
    young = young_interval_seconds(write_seconds, mtbf_seconds)
    ratio = write_seconds / (2 * mtbf_seconds)
    if ratio >= 1:
        return mtbf_seconds
    return young * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write_seconds


@dataclass(frozen=True, kw_only=True)
class CheckpointLoss:
    """Seconds that saving and failing add to a run.

    Attributes:
        work_seconds: Seconds of training proper.
        write_seconds: Expected seconds of writing checkpoints that were kept.
        rework_seconds: Expected seconds of lost work, lost writes and restarts.
    """

    work_seconds: float
    write_seconds: float
    rework_seconds: float

    @property
    def lost_seconds(self) -> float:
        """Expected seconds in excess of training."""
        return self.write_seconds + self.rework_seconds

    @property
    def goodput(self) -> float:
        """Training as a share of the expected wall time."""
        return self.work_seconds / (self.work_seconds + self.lost_seconds)


def expected_loss_seconds(
    *,
    work_seconds: float,
    interval_seconds: float,
    write_seconds: float,
    mtbf_seconds: float,
    restart_seconds: float = 0.0,
) -> CheckpointLoss:
    """Estimate the time lost to checkpoints and failures.

    Args:
        work_seconds: T, seconds of training proper.
        interval_seconds: τ, seconds of training between checkpoints.
        write_seconds: δ, seconds that training stands still for one checkpoint.
        mtbf_seconds: M, mean time between failures of the whole run.
        restart_seconds: R, seconds from a failure until training goes on.

    Returns:
        The loss; the whole run takes M·exp(R/M)·(exp((τ + δ)/M) − 1)·T/τ (Daly 2006, the
        complete cost model; failures are Poisson and may strike during a write or restart).

    Raises:
        ValueError: If a number is out of range, or the run could hardly ever end.
    """
    check_positive("work_seconds", work_seconds, "seconds")
    check_positive("interval_seconds", interval_seconds, "seconds")
    check_positive("write_seconds", write_seconds, "seconds", zero_ok=True)
    check_positive("mtbf_seconds", mtbf_seconds, "seconds")
    check_positive("restart_seconds", restart_seconds, "seconds", zero_ok=True)
    segments = work_seconds / interval_seconds
    try:
        growth = math.expm1((interval_seconds + write_seconds) / mtbf_seconds)
        wall = mtbf_seconds * math.exp(restart_seconds / mtbf_seconds) * growth * segments
    except OverflowError:
        raise ValueError(
            f"interval_seconds = {interval_seconds!r}: expected a time comparable to mtbf_seconds "
            f"= {mtbf_seconds!r}, or a failure strikes before every checkpoint; save more often."
        ) from None
    writing = segments * write_seconds
    # Rounding may leave a run without failures a hair below its own length.
    return CheckpointLoss(
        work_seconds=work_seconds,
        write_seconds=writing,
        rework_seconds=max(0.0, wall - work_seconds - writing),
    )
