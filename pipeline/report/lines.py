"""Lines that fit: texts wrapped between words, parts of which as many are shown as have room."""

import os
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text


def wrap_words(text: str, first_columns: int, columns: int) -> list[str]:
    """Divide a line between words; a word that is longer, such as a path, stays whole.

    Args:
        text: Of one line.
        first_columns: Of the first line.
        columns: Of the others.
    """
    lines: list[str] = []
    line, used, most = "", 0, first_columns
    for word in text.split(" "):
        size = cell_len(word)
        if line and used + 1 + size > most:
            lines.append(line)
            line, used, most = word, size, columns
        else:
            line, used = (f"{line} {word}", used + 1 + size) if line else (word, size)
    return [*lines, line]


def fit_parts(parts: Sequence[str], columns: int) -> str:
    """Join parts by commas, the first as many as fit, and say how many more there are.

    The first part is shown in any case: cut off where it does not fit, with two dots for others.
    """
    for shown in range(len(parts), 0, -1):
        rest = len(parts) - shown
        text = ", ".join(parts[:shown]) + (f" .. and {rest:,} more" if rest else "")
        if cell_len(text) <= columns:
            return text
    cut = Text((parts[0] if parts else "") + (" .." if len(parts) > 1 else ""))
    cut.truncate(max(1, columns), overflow="ellipsis")
    return cut.plain


def shown_path(path: str) -> str:
    """Return a path as one would type it here: relative if it is below the current directory."""
    here = os.getcwd()
    if os.path.isabs(path) and path.startswith(os.path.join(here, "")):
        return os.path.relpath(path, here)
    return path
