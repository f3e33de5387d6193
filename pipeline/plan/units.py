"""Numbers as people type them: 540e9, 1.5B, 12.8G, 6,144, 40%, 3TB."""

from __future__ import annotations

import math
import re

from tokenmill.errors import TokenmillError
from tokenmill.number_format import approximate

_NUMBER = re.compile(r"^([-+]?[0-9][0-9_,]*\.?[0-9]*(?:e[-+]?[0-9]+)?|[-+]?\.[0-9]+)\s*([a-z%]*)$")
_EXPERTS = re.compile(r"^([0-9]+)\s*[x*×]\s*[0-9.]+\s*[a-z]*$")  # 8x7B
# K, M, B and T count tokens and parameters in English usage; G and P are the SI's.
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}
_SEPARATORS = str.maketrans("", "", ",_")
_LARGE = 1e15  # whatever goes this far is counted in billions
_BYTES = {"kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40}


class FlagError(TokenmillError):
    """A flag of the command line is wrong; the message names it."""


def number(text: str) -> float | None:
    """Return a quantity without a unit of its own, such as 1.5B or 40%; None if it is none."""
    value, suffix = _split(text) or (0.0, None)
    if suffix == "%":
        return value / 100
    factor = None if suffix is None else _FACTORS.get(suffix)
    return None if factor is None else value * factor


def _split(text: str) -> tuple[float, str] | None:
    match = _NUMBER.match(text.strip().lower())
    return None if match is None else (float(match[1].translate(_SEPARATORS)), match[2])


def _read(flag: str, text: str, expected: str) -> tuple[float, str]:
    found = _split(text)
    if found is None and (experts := _EXPERTS.match(text.strip().lower())):
        raise FlagError(
            f"{flag} = {text!r}: a mixture of experts is less than their product, which shares all "
            "but the MLPs: give --params N and --active-params N, or its shape with --set "
            f"model.experts={experts[1]} --set model.experts_per_token=N."
        )
    if found is None:
        raise FlagError(f"{flag} = {text!r}: expected {expected}.")
    return found


def quantity(
    flag: str,
    text: str,
    unit: str,
    *,
    most: float,
    zero_ok: bool = False,
    is_bytes: bool = False,
) -> float:
    """Read a quantity of more than zero.

    Args:
        flag: The flag, for messages.
        text: What was typed.
        unit: The unit, in the plural, for messages.
        most: More than this is a slip of the keyboard.
        zero_ok: Whether zero is allowed.
        is_bytes: Whether KB, GB, GiB and the like are allowed.

    Raises:
        FlagError: It is no number, or out of range.
    """
    expected = f"a number of {unit}" + (", such as 540e9 or 1.5B" if most >= _LARGE else "")
    value, suffix = _read(flag, text, expected)
    factor = _FACTORS.get(suffix)
    if factor is None and is_bytes:
        factor = _BYTES.get(suffix, _FACTORS.get(suffix[:-1]) if suffix.endswith("b") else None)
    if factor is None:
        raise FlagError(f"{flag} = {text!r}: {suffix!r} is no unit here; expected {expected}.")
    value *= factor
    least = "zero or more" if zero_ok else "more than zero"
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_ok):
        raise FlagError(f"{flag} = {text!r}: expected {least}, in {unit}.")
    if value > most:
        raise FlagError(
            f"{flag} = {text!r}: {approximate(value)} {unit} is absurd; at most "
            f"{approximate(most)} is allowed."
        )
    return value


def whole(flag: str, text: str, unit: str, *, most: float, zero_ok: bool = False) -> int:
    """Read a whole number of at least one.

    Args:
        flag: The flag, for messages.
        text: What was typed.
        unit: The unit, in the plural, for messages.
        most: More than this is a slip of the keyboard.
        zero_ok: Whether zero is allowed.

    Raises:
        FlagError: It is no whole number, or out of range.
    """
    value = quantity(flag, text, unit, most=most, zero_ok=zero_ok)
    if value != int(value):
        raise FlagError(f"{flag} = {text!r}: expected a whole number of {unit}.")
    return int(value)


def fraction(flag: str, text: str) -> float:
    """Read a fraction above 0 and at most 1; 40% is 0.4.

    Args:
        flag: The flag, for messages.
        text: What was typed.

    Raises:
        FlagError: It is no number, or out of range.
    """
    value, suffix = _read(flag, text, "a fraction such as 0.4 or 40%")
    if suffix == "%":
        value /= 100
    elif suffix:
        raise FlagError(f"{flag} = {text!r}: expected a fraction such as 0.4 or 40%.")
    if not 0 < value <= 1:
        hint = f"; write {value:g} % as {value / 100:g}" if 1 < value <= 100 else ""
        raise FlagError(f"{flag} = {text!r}: expected a fraction above 0 and at most 1{hint}.")
    return value
