"""Numbers as people write them: $1.2 billion, 8.05 TB, 81,784 or 1.3 billion, 3 min 06 s, 2.97e13.

The one place for all that a screen, a page or a message shows; documents keep numbers as they are.
Rounding comes before the choice of a unit: 999,999,999 dollars are $1 billion, not $1,000 million.
"""

import math
from collections.abc import Callable, Sequence

_BILLION = 1e9
_WORDS = ((1e15, " quadrillion"), (1e12, " trillion"), (_BILLION, " billion"), (1e6, " million"))
_LETTERS = ((1e12, "T"), (_BILLION, "B"), (1e6, "M"))
_BYTES = tuple((10.0**power, f" {letter}B") for power, letter in
               ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")))  # fmt: skip
_RATES = tuple((10.0**power, f" {prefix}FLOP/s") for power, prefix in
               ((21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")))  # fmt: skip
# Beyond these words end, and positions are not counted by eye.
_LARGEST, _SMALLEST = 1e18, 1e-6
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365.25 * 86_400
_MOST_HOURS, _MOST_DAYS = 72, 730


def count(number: float) -> str:
    """Write a count whole, with separators: 81,784; from a billion on in words: 1.3 billion."""
    if abs(number) < _BILLION - 0.5:
        return f"{round(number):,}"
    return approximate(number)


def approximate(number: float, digits: int = 3) -> str:
    """Write a number to some digits: 0.249, 81,784, 84.2 million, 1.3 billion, 2.5e19."""
    if not math.isfinite(number):
        return str(number)
    rounded = _round(number, digits)
    if abs(rounded) >= _LARGEST:
        return power_of_ten(number, digits)
    return _in_unit(number, _WORDS, digits) or decimal(number, digits)


def decimal(number: float, digits: int = 3) -> str:
    """Write a number to some digits without an exponent, all digits before the point: 1,234."""
    if not math.isfinite(number):
        return str(number)
    rounded = _round(number, digits)
    if rounded == 0:
        return "0"
    if abs(rounded) < _SMALLEST or abs(rounded) >= _LARGEST:
        return power_of_ten(number, digits)
    if abs(rounded) >= 10**digits:
        return f"{round(number):,}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def power_of_ten(number: float, digits: int = 3) -> str:
    """Write a number with its power of ten, as FLOPs are: 2.97e13."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def with_letter(number: float, digits: int = 4) -> str:
    """Write parameters or tokens with the usual letter: 7B, 1.5T, 124.4M; below a million whole."""
    return _in_unit(number, _LETTERS, digits) or count(number)


def active_params(total: float, active: float | None, show: Callable[[float], str] = count) -> str:
    """Write, behind a model's parameters, those that a token passes: " (1,204 active a token)".

    Args:
        total: All parameters.
        active: All but the experts that a token is not sent to; None where it is not known.
        show: Writes a number.

    Returns:
        Empty where they do not differ, as in a dense model.
    """
    return "" if active is None or active == total else f" ({show(active)} active a token)"


def usd(amount: float) -> str:
    """Write an amount of money: $0.00557, $1.23, $1,234, $1.2 billion, -$3.00, <$0.000001.

    An amount that is not zero never reads as zero.
    """
    sign, amount = "-" if amount < 0 else "", abs(amount)
    if 0 < amount < _SMALLEST:
        return f"{sign}<$0.000001"
    if amount and _round(amount, 3) < 0.1:
        return f"{sign}${decimal(amount)}"
    if round(amount, 2) < 1000:
        return f"{sign}${amount:,.2f}"
    if round(amount) < 1_000_000:
        return f"{sign}${round(amount):,}"
    return f"{sign}${approximate(amount)}"


def usd_price(usd_per_unit: float) -> str:
    """Write a price of an hour or the like with all its digits: $2.70, $0.7992, $1,234.50."""
    text = decimal(usd_per_unit, 6)
    whole, _, places = text.partition(".")
    return f"${whole}.{places:0<2}" if "e" not in text else f"${text}"


def byte_size(size_bytes: float) -> str:
    """Write a size in decimal units: 998 bytes, 13.8 MB, 8.05 TB; 1 MB is 10^6 bytes."""
    if written := _in_unit(size_bytes, _BYTES, 3):
        return written
    whole = round(size_bytes)
    return f"{whole:,} byte{'' if abs(whole) == 1 else 's'}"


def flops_per_second(rate: float, digits: int = 3) -> str:
    """Write a speed of computing: 171 GFLOP/s, 989.5 TFLOP/s."""
    return _in_unit(rate, _RATES, digits) or f"{decimal(rate, digits)} FLOP/s"


def duration(seconds: float) -> str:
    """Write a time as a person would say it: 4.2 s, 3 min 06 s, 9.2 h, 12.5 days, 2.1 years."""
    sign, seconds = "-" if seconds < 0 else "", abs(seconds)
    if round(seconds, 1) < _MINUTE:
        return f"{sign}{seconds:.1f} s"
    if round(seconds) < _HOUR:
        return f"{sign}{round(seconds) // _MINUTE} min {round(seconds) % _MINUTE:02d} s"
    if seconds < _MOST_HOURS * _HOUR:
        return f"{sign}{seconds / _HOUR:,.1f} h"
    if seconds < _MOST_DAYS * _DAY:
        return f"{sign}{seconds / _DAY:,.1f} days"
    years = seconds / _YEAR
    return f"{sign}{f'{years:,.1f}' if years < 1e6 else approximate(years)} years"


def _in_unit(number: float, units: Sequence[tuple[float, str]], digits: int) -> str:
    """Write a number in the largest unit that it fills; empty if it fills none."""
    rounded = _round(number, digits)
    for factor, unit in units:
        if abs(rounded) >= factor:
            return f"{decimal(rounded / factor, digits)}{unit}"
    return ""


def _round(number: float, digits: int) -> float:
    return float(f"{number:.{digits}g}")
