r"""Classes of characters as the `tokenizers` library has them, spelled out for RE2.

The Unicode versions of the library, of RE2 and of Python differ, and RE2's `\s` is ASCII only.
"""

from __future__ import annotations

import functools

import numpy as np
import tokenizers
from tokenizers import normalizers

_SURROGATES = range(0xD800, 0xE000)
ALL_CHARACTERS = "".join(chr(code) for code in range(0x110000) if code not in _SURROGATES)
"""All code points but the surrogates, ascending."""


@functools.cache
def character_class(pattern: str) -> str:
    r"""Return the inside of a bracket expression that holds what a class of the library holds.

    Args:
        pattern: Inside of a bracket expression of the library, such as `\p{L}`.
    """
    others = normalizers.Replace(tokenizers.Regex(f"[^{pattern}]+"), "")
    codes = np.array([ord(c) for c in others.normalize_str(ALL_CHARACTERS)])
    # A range over the surrogates would be no range to RE2.
    gap = (np.diff(codes) > 1) | (
        (codes[1:] >= _SURROGATES.stop) & (codes[:-1] < _SURROGATES.start)
    )
    ranges = zip(codes[np.append(True, gap)], codes[np.append(gap, True)], strict=True)
    return "".join(f"\\x{{{low:X}}}-\\x{{{high:X}}}" for low, high in ranges)
