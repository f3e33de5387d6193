"""The same run on every chip of the catalog, by cost and by time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from data.catalog.chips import load_chips
from tokenmill.cost.plan.planning import PlanRequest, make_plan


@dataclass(frozen=True, kw_only=True)
class ChipLine:
    """The run on one chip, and the chip's ranks.

    Attributes:
        chip: Its slug.
        price_usd_per_chip_hour: Default price of the catalog, USD; None where there is none.
        price_label: Who asks it, and when.
        mfu: The utilization that is assumed.
        chip_hours: Chip-hours.
        wall_hours: Hours with the request's number of chips.
        compute_usd: Bare compute bill, USD; None without a price.
        rank_by_cost: 1 is the cheapest; None without a price.
        rank_by_time: 1 is the fastest for the same number of chips.
        smallest_chips: Fewest chips that hold the model (ZeRO 3 or tensor parallel x ZeRO 3).
    """

    chip: str
    price_usd_per_chip_hour: float | None
    price_label: str
    mfu: float
    chip_hours: float
    wall_hours: float
    compute_usd: float | None
    rank_by_cost: int | None
    rank_by_time: int
    smallest_chips: int | None


def compare_chips(request: PlanRequest) -> list[ChipLine]:
    """Plan a run on every chip that has a peak.

    The number of chips, and MFU and goodput where they are given, are the same for all; without
    an MFU each chip has its own, from published runs. The request's own chip keeps its peak and
    price.

    Args:
        request: The run. An observed throughput belongs to one chip: it is taken as that MFU.

    Returns:
        The chips, cheapest first, those without a price at the end.
    """
    own = request.hardware
    if own.observed_tokens_per_second is not None:
        own = replace(own, observed_tokens_per_second=None, mfu=make_plan(request).mfu)
    lines = []
    for chip in load_chips():
        mine = chip.slug == own.chip.slug
        peak = own.peak_flops_per_second if mine else chip.peak_flops_per_second
        if peak is None:
            continue
        price = own.price_usd_per_chip_hour if mine else chip.price_usd_per_chip_hour
        there = replace(own, chip=chip, peak_flops_per_second=peak, price_usd_per_chip_hour=price)
        plan = make_plan(replace(request, hardware=there))
        label = chip.prices[0].label if chip.prices else "no price"
        if mine and price != chip.price_usd_per_chip_hour:
            label = "given"
        counts = [fit.smallest_chips for fit in plan.fits if fit.smallest_chips is not None]
        lines.append(
            ChipLine(
                chip=chip.slug,
                price_usd_per_chip_hour=price,
                price_label=label,
                mfu=plan.mfu,
                chip_hours=plan.cost.chip_hours,
                wall_hours=plan.cost.wall_hours,
                compute_usd=None if price is None else plan.cost.compute_usd,
                rank_by_cost=None,
                rank_by_time=0,
                smallest_chips=min(counts, default=None),
            )
        )
    by_time = sorted(lines, key=lambda line: (line.wall_hours, line.chip))
    times = {line.chip: place for place, line in enumerate(by_time, start=1)}

    def cost(line: ChipLine) -> tuple[bool, float, str]:
        return line.compute_usd is None, line.compute_usd or 0.0, line.chip

    return [
        replace(
            line,
            rank_by_cost=None if line.compute_usd is None else place,
            rank_by_time=times[line.chip],
        )
        for place, line in enumerate(sorted(lines, key=cost), start=1)
    ]
