"""Suggestions for a word that is not allowed: the allowed one that is most like it."""

import difflib
from collections.abc import Sequence


def did_you_mean(word: str, candidates: Sequence[str]) -> str:
    """Return " (did you mean X?)" with the candidate that is most like a word; empty for none."""
    close = difflib.get_close_matches(word, candidates, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
