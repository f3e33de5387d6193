"""What FineWeb-2 says of each language: thresholds of rules, and stop words.

Penedo et al. 2025 ("FineWeb2: One Pipeline to Scale Them All") derived them from each language's
Wikipedia and its part of Common Crawl. fineweb2.json is made by tools/thresholds_by_language.py.
"""

import functools
import json
from pathlib import Path

RULE_SET = "fineweb-2"


@functools.cache
def _languages() -> dict[str, dict]:
    return json.loads(Path(__file__).with_name("fineweb2.json").read_text(encoding="utf-8"))


@functools.cache
def thresholds_by_language() -> dict[str, dict[str, float]]:
    """Return the thresholds of FineWeb-2, by language and setting."""
    return {code: found["thresholds"] for code, found in _languages().items()}


def stop_words_of(code: str) -> list[str]:
    """Return FineWeb-2's stop words of a language; none if it does not have it."""
    return _languages().get(code, {}).get("stop_words", [])
