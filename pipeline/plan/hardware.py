"""The flags of `tokenmill plan` that describe chips, utilization and price."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.catalog.chips import Chip, find_chip
from pipeline.plan.units import FlagError, fraction, quantity, whole
from tokenmill.cost.devices import ASSUMED_CPU_MFU, CPU_CHIP

if TYPE_CHECKING:
    from pipeline.config import Config

DEFAULT_CHIP = "a100-sxm4-80gb"
_MOST_CHIPS = 1e7
_HIGH_MFU = 0.7
_HIGH_PRICE_USD = 50.0
_MATRIX = 1024
_MEASURE_SECONDS = 0.3
_PRODUCTS = 4  # a round: one product alone is at the mercy of the clock


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the run is computed on and paid for; units in the names."""

    chip: Chip
    chips: int
    peak_flops_per_second: float
    precision: str
    mfu: float | None
    mfu_source: str
    hfu: float | None
    observed_tokens_per_second: float | None
    goodput: float
    price_usd_per_chip_hour: float | None
    price_label: str


def hardware_of_flags(
    given: Mapping[str, Any], config: Config | None, notes: list[str]
) -> Hardware:
    """Chips, utilization and price from the flags, then the configuration, then the catalog.

    Args:
        given: Flags by name, None where not given.
        config: The configuration, if there is one.
        notes: What was assumed or looks odd is added here.

    Raises:
        FlagError: A flag is wrong or contradicts another.
    """
    cost = config.cost if config is not None else None
    name = given["hardware"] or (cost.chip if cost else DEFAULT_CHIP)
    try:
        chip = find_chip(name)
    except ValueError as error:
        words = str(error).partition(": ")[2].partition(". Choose")[0]
        where = "--hardware" if given["hardware"] else "cost.chip"
        raise FlagError(f"{where} = {name!r}: {words}.") from None
    # The configuration's facts are of its own chip only.
    same = cost is not None and find_chip(cost.chip).slug == chip.slug
    if given["hardware"] is None and cost is None:
        notes.append(f"--hardware {chip.slug} assumed")
    own = cost if same else None
    chips = _chips(given, own, chip)
    precision = _precision(given, config, chip, notes)
    peak = _peak(given, own, chip, chips, precision, notes)
    mfu = _mfu(given, own, peak, notes)
    if mfu is not None and mfu > _HIGH_MFU:
        notes.append(f"MFU {mfu:.0%} is more than any published run has reached over days")
    goodput = own.goodput if own else 1.0
    if given["goodput"] is not None:
        goodput = fraction("--goodput", given["goodput"])
    published = mfu is None and given["hfu"] is None
    if goodput < 1 and published and given["observed_tokens_per_second"] is None:
        notes.append("goodput comes on top of the published bills, which hold their own downtime")
    price, label = _price(given, own, chip, notes)
    observed = given["observed_tokens_per_second"]
    return Hardware(
        chip=chip,
        chips=chips,
        peak_flops_per_second=peak,
        precision=precision,
        mfu=mfu,
        mfu_source="given" if _MFU_FLAGS & {k for k, v in given.items() if v} else "configuration",
        hfu=None if given["hfu"] is None else fraction("--hfu", given["hfu"]),
        observed_tokens_per_second=None
        if observed is None
        else quantity("--observed-tokens-per-second", observed, "tokens per second", most=1e12),
        goodput=goodput,
        price_usd_per_chip_hour=price,
        price_label=label,
    )


_MFU_FLAGS = {"mfu", "tflops_per_chip"}


def _chips(given: Mapping[str, Any], cost: Any, chip: Chip) -> int:
    if given["chips"] is not None:
        return whole("--chips", given["chips"], "chips", most=_MOST_CHIPS)
    if cost is None:
        return 1
    if cost.chips != "auto":
        return int(cost.chips)
    return len(os.sched_getaffinity(0)) if chip.slug == CPU_CHIP else 1


def _precision(
    given: Mapping[str, Any], config: Config | None, chip: Chip, notes: list[str]
) -> str:
    if given["precision"] is not None:
        chosen = str(given["precision"])
        if "bfloat16" in chosen and chip.bfloat16_supported is False:
            notes.append(
                f"{chip.slug} has no bfloat16: --precision mixed_float16 is its 16-bit type"
            )
        return chosen
    if config is not None:
        return config.train.precision
    if chip.slug == CPU_CHIP:
        return "float32"
    return "mixed_float16" if chip.bfloat16_supported is False else "mixed_bfloat16"


def _peak(
    given: Mapping[str, Any], cost: Any, chip: Chip, chips: int, precision: str, notes: list[str]
) -> float:
    if given["peak_tflops"] is not None:
        return quantity("--peak-tflops", given["peak_tflops"], "TFLOP/s", most=1e6) * 1e12
    if cost is not None and cost.peak_flops_per_second_per_chip is not None:
        return float(cost.peak_flops_per_second_per_chip)
    if chip.slug == CPU_CHIP:
        cores = len(os.sched_getaffinity(0))
        notes.append(
            f"a CPU has no peak in the catalog: float32 matrix products timed on this machine's "
            f"{cores} cores; --peak-tflops overrides"
        )
        return _measured_cpu_flops_per_second() / cores
    peak = chip.peak_for(precision)
    if peak is None:
        raise FlagError(f"--peak-tflops is missing: the catalog has no peak for {chip.slug}.")
    if peak != chip.peak_flops_per_second:
        notes.append(f"float32 runs at the {peak / 1e12:g} TFLOP/s peak")
    return peak


def _measured_cpu_flops_per_second() -> float:
    """float32 FLOP/s of NumPy's matrix product, all cores: the best of some rounds.

    The ledger of a run times TensorFlow's; on a quiet machine the two agree within a few per cent.
    """
    import numpy as np

    a = np.ones((_MATRIX, _MATRIX), np.float32)
    best, deadline = 0.0, time.perf_counter() + _MEASURE_SECONDS
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        for _ in range(_PRODUCTS):
            a @ a
        taken = time.perf_counter() - started
        best = max(best, _PRODUCTS * 2.0 * _MATRIX**3 / taken)
    return best


def _mfu(given: Mapping[str, Any], cost: Any, peak: float, notes: list[str]) -> float | None:
    ways = ("mfu", "hfu", "tflops_per_chip", "observed_tokens_per_second")
    chosen = [way for way in ways if given[way] is not None]
    if len(chosen) > 1:
        one, other = ("--" + way.replace("_", "-") for way in chosen[:2])
        raise FlagError(f"{one} contradicts {other}: both say how fast the chips are; give one.")
    if given["mfu"] is not None:
        return fraction("--mfu", given["mfu"])
    if given["tflops_per_chip"] is not None:
        text = given["tflops_per_chip"]
        achieved = quantity("--tflops-per-chip", text, "TFLOP/s", most=1e6) * 1e12
        if achieved > peak:
            raise FlagError(
                f"--tflops-per-chip = {text!r}: more than the peak of {peak / 1e12:g} TFLOP/s."
            )
        return achieved / peak
    if cost is None or chosen:
        return None
    if isinstance(cost.mfu, float):
        return cost.mfu
    if find_chip(cost.chip).slug != CPU_CHIP:
        return None  # the published runs' range
    notes.append(f"a run measures its MFU on this machine; {ASSUMED_CPU_MFU:g} is assumed here")
    return ASSUMED_CPU_MFU


def _price(
    given: Mapping[str, Any], cost: Any, chip: Chip, notes: list[str]
) -> tuple[float | None, str]:
    text, date, word = (given[n] for n in ("price_per_chip_hour", "price_date", "price_from"))
    if text is not None:
        if word is not None:
            raise FlagError("--price-from contradicts --price-per-chip-hour: give one.")
        price = quantity("--price-per-chip-hour", text, "USD per chip-hour", most=1e4, zero_ok=True)
        if price > _HIGH_PRICE_USD:
            notes.append(f"${price:g} an hour for one chip: is that the price of a whole machine?")
        if date is None and price > 0:
            notes.append("the price has no date: --price-date says when it was asked")
        return price, f"given, {date or 'no date'}"
    if date is not None:
        raise FlagError("--price-date needs --price-per-chip-hour.")
    if word is not None:
        found = [p for p in chip.prices if word.lower() in f"{p.provider} {p.region}".lower()]
        if not found:
            known = "; ".join(price.label for price in chip.prices) or "none"
            raise FlagError(f"--price-from = {word!r}: prices of {chip.slug}: {known}.")
        price_row = found[0]
    elif cost is not None and cost.price_usd_per_chip_hour is not None:
        return cost.price_usd_per_chip_hour, "the configuration"
    elif chip.prices:
        price_row = chip.prices[0]
    else:
        notes.append(f"no price for {chip.slug} in the catalog: --price-per-chip-hour gives one")
        return None, "no price"
    if not price_row.date:
        notes.append(f"the catalog's price of {chip.slug} has no date ({price_row.source})")
    return price_row.usd_per_chip_hour, price_row.label
