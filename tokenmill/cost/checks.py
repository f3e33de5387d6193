"""Checks of quantities that the cost modules share."""

from __future__ import annotations

import math


def check_positive(field: str, value: float, unit: str, *, zero_ok: bool = False) -> None:
    """Raise unless a quantity is a finite number above zero.

    Args:
        field: Name of the quantity, as the caller knows it.
        value: The quantity.
        unit: Its unit, in the plural, for the message.
        zero_ok: Whether zero is allowed too.

    Raises:
        ValueError: If it is not.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero_ok):
        expected = "zero or more" if zero_ok else "more than zero"
        raise ValueError(
            f"{field} = {value!r}: expected {expected}, in {unit}; check where it was set or "
            "measured."
        )


def check_fraction(field: str, value: float) -> None:
    """Raise unless a value is above 0 and at most 1.

    Args:
        field: Name of the quantity, as the caller knows it.
        value: The fraction.

    Raises:
        ValueError: If it is not.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:
        raise ValueError(
            f"{field} = {value!r}: expected a fraction above 0 and at most 1; write 40 % as 0.4."
        )
