"""The chips, utilization and price of a plan, from flags, configuration and catalog."""

from __future__ import annotations

import statistics
import time

from components.ledger.config import CostConfig
from data.catalog.chips import Chip, find_chip
from pipeline.plan.config import PlanInput
from pipeline.plan.flags import PlanFlags
from pipeline.plan.units import FlagError
from tokenmill.cost.devices import ASSUMED_CPU_MFU, CPU_CHIP
from tokenmill.cost.memory import Precision
from tokenmill.cost.plan.hardware import Hardware
from tokenmill.machine import memory_bytes, vcpus
from tokenmill.number_format import usd_price

_HIGH_MFU = 0.7
_HIGH_PRICE_USD = 50.0
_HIGH_OVER_MEDIAN = 1.2
_MATRIX = 1024
_MEASURE_SECONDS = 0.3
_PRODUCTS = 4  # a round: one product alone is at the mercy of the clock
# What a configuration says of its own chip and of no other.
_OF_THE_CHIP = (
    "chips",
    "peak_flops_per_second_per_chip",
    "mfu",
    "goodput",
    "price_usd_per_chip_hour",
)


def choose_hardware(flags: PlanFlags, source: PlanInput, notes: list[str]) -> Hardware:
    """Return the chips of a plan: flags go before the configuration, and that before the catalog.

    Args:
        flags: The flags.
        source: The configuration.
        notes: What was assumed or looks odd is added here.

    Raises:
        FlagError: A flag or key is wrong or contradicts another.
    """
    cost = source.config.cost
    chip = _chip("cost.chip", cost.chip)
    own = source.named
    if flags.hardware is not None:
        chip, configured = _chip("--hardware", flags.hardware), chip
        own = own and chip == configured
        if chip != configured:
            other = CostConfig(chip=chip.slug, chips=1)
            fresh = {key for key in _OF_THE_CHIP if f"cost.{key}" not in source.given}
            cost = cost.model_copy(update={key: getattr(other, key) for key in fresh})
    elif not source.states("cost.chip"):
        notes.append(f"--hardware {chip.slug} assumed")
    chips = cost.chips if flags.chips is None else flags.chips
    if chips == "auto":
        chips = vcpus() if chip.slug == CPU_CHIP else 1
    precision = _precision(source, chip, notes)
    peak = _peak(chip, cost, precision, notes)
    mfu, mfu_source = _mfu(flags, cost, own and chip.slug == CPU_CHIP, peak, notes)
    if mfu is not None and mfu > _HIGH_MFU:
        notes.append(f"MFU {mfu:.0%} is more than any published run has reached over days")
    goodput = cost.goodput if flags.goodput is None else flags.goodput
    observed = flags.observed_tokens_per_second
    if goodput < 1 and mfu is None and flags.hfu is None and observed is None:
        notes.append("goodput comes on top of the published bills, which hold their own downtime")
    price, label = _price(flags, cost, chip, notes)
    return Hardware(
        chip=chip,
        chips=chips,
        precision=precision,
        peak_flops_per_second=peak,
        price_usd_per_chip_hour=price,
        price_label=label,
        mfu=mfu,
        mfu_source=mfu_source,
        hfu=flags.hfu,
        observed_tokens_per_second=observed,
        goodput=goodput,
        machine_memory_bytes=memory_bytes(),
    )


def _chip(where: str, name: str) -> Chip:
    try:
        return find_chip(name)
    except ValueError as error:
        words = str(error).partition(": ")[2].removesuffix(".")
        words = words.removesuffix(". Choose one, or add a row with its source")
        raise FlagError(f"{where} = {name!r}: {words}.", "Choose one of these.") from None


def _precision(source: PlanInput, chip: Chip, notes: list[str]) -> Precision:
    """Return the precision of the configuration, or else the usual one of a chip."""
    key, lacks_bfloat16 = "train.precision", chip.bfloat16_supported is False
    if source.states(key):
        precision = source.config.train.precision
        if key in source.given and "bfloat16" in precision and lacks_bfloat16:
            notes.append(f"{chip.slug} has no bfloat16: {key}=mixed_float16 is its 16-bit type")
        return precision
    if chip.slug == CPU_CHIP:
        return "float32"
    return "mixed_float16" if lacks_bfloat16 else "mixed_bfloat16"


def _peak(chip: Chip, cost: CostConfig, precision: Precision, notes: list[str]) -> float:
    key = "cost.peak_flops_per_second_per_chip"
    if cost.peak_flops_per_second_per_chip is not None:
        return cost.peak_flops_per_second_per_chip
    if chip.slug == CPU_CHIP:
        cores = vcpus()
        notes.append(
            f"a CPU has no peak in the catalog: float32 matrix products timed on this machine's "
            f"{cores} cores; --set {key}=N overrides"
        )
        return _measured_cpu_flops_per_second() / cores
    peak = chip.peak_for(precision)
    if peak is None:
        raise FlagError(f"{key} is missing: the catalog has no peak for {chip.slug}; --set it.")
    if peak != chip.peak_flops_per_second:
        half = "mixed_float16" if chip.bfloat16_supported is False else "mixed_bfloat16"
        fast = chip.peak_flops_per_second
        advice = "" if not fast else f": --set train.precision={half} runs at {fast / 1e12:g}"
        notes.append(f"float32 runs at the {peak / 1e12:g} TFLOP/s peak{advice}")
    return peak


def _measured_cpu_flops_per_second() -> float:
    """Time NumPy's float32 matrix product on all cores: FLOP/s of the best of some rounds.

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


def _mfu(
    flags: PlanFlags, cost: CostConfig, measured: bool, peak: float, notes: list[str]
) -> tuple[float | None, str]:
    """Return the MFU, None where it follows from the flags or published runs, and its source.

    Args:
        flags: The flags.
        cost: What the configuration says of the chip.
        measured: Whether a run of this configuration would measure it unless it is given.
        peak: FLOP/s of one chip.
        notes: What was assumed is added here.
    """
    ways = {
        "--mfu": flags.mfu,
        "--hfu": flags.hfu,
        "--tflops-per-chip": flags.tflops_per_chip,
        "--observed-tokens-per-second": flags.observed_tokens_per_second,
    }
    chosen = [way for way, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise FlagError(
            f"{chosen[0]} contradicts {chosen[1]}: both say how fast the chips are; give one."
        )
    if flags.tflops_per_chip is not None:
        mfu = flags.tflops_per_chip * 1e12 / peak
        if mfu > 1:
            raise FlagError(
                f"--tflops-per-chip = {flags.tflops_per_chip:g}: more than the peak of "
                f"{peak / 1e12:g} TFLOP/s.",
                "Give what a chip reaches in training, or another --hardware.",
            )
        return mfu, "given"
    if chosen:
        return flags.mfu, "given"
    if isinstance(cost.mfu, float):
        return cost.mfu, "configuration"
    if not measured:
        return None, ""  # the published runs' range
    notes.append(f"a run measures its MFU on this machine; {ASSUMED_CPU_MFU:g} is assumed here")
    return ASSUMED_CPU_MFU, "configuration"


def _price(
    flags: PlanFlags, cost: CostConfig, chip: Chip, notes: list[str]
) -> tuple[float | None, str]:
    """Return USD per chip-hour, None where no price is known, and who asks it."""
    price, date, word = flags.price_per_chip_hour, flags.price_date, flags.price_from
    if price is not None:
        if word is not None:
            raise FlagError("--price-from contradicts --price-per-chip-hour: give one.")
        if price > _HIGH_PRICE_USD:
            notes.append(f"${price:g} an hour for one chip: is that the price of a whole machine?")
        if date is None and price > 0:
            notes.append("the price has no date: --price-date says when it was asked")
        return price, f"given, {date or 'no date'}"
    if date is not None:
        raise FlagError("--price-date needs --price-per-chip-hour.")
    if word is not None:
        found = [price for price in chip.prices if word.lower() in price.label.lower()]
        if not found:
            known = "; ".join(price.label for price in chip.prices) or "none"
            raise FlagError(
                f"--price-from = {word!r}: prices of {chip.slug}: {known}.",
                "Take a word of one of these, or give --price-per-chip-hour.",
            )
        price_row = found[0]
        if others := [p for p in found if p.usd_per_chip_hour != price_row.usd_per_chip_hour]:
            rest = "; ".join(f"{usd_price(p.usd_per_chip_hour)} ({p.label})" for p in others)
            notes.append(
                f"--price-from {word} is also {rest}: name one by its date, or give "
                "--price-per-chip-hour"
            )
    elif cost.price_usd_per_chip_hour is not None:
        return cost.price_usd_per_chip_hour, "the configuration"
    elif chip.prices:
        price_row = chip.prices[0]
        prices = sorted(chip.prices, key=lambda price: price.usd_per_chip_hour)
        middle = statistics.median(price.usd_per_chip_hour for price in prices)
        if price_row.usd_per_chip_hour > _HIGH_OVER_MEDIAN * middle:
            notes.append(
                f"the price ({price_row.label}) is one of the dearest: the {len(prices)} of "
                f"{chip.slug} go from {usd_price(prices[0].usd_per_chip_hour)} "
                f"({prices[0].label}) to {usd_price(prices[-1].usd_per_chip_hour)}, half of them "
                f"up to {usd_price(round(middle, 4))}; --price-from chooses by provider or date"
            )
    else:
        notes.append(f"no price for {chip.slug} in the catalog: --price-per-chip-hour gives one")
        return None, "no price"
    if not price_row.date:
        notes.append(f"the catalog's price of {chip.slug} has no date ({price_row.source})")
    return price_row.usd_per_chip_hour, price_row.label
