"""How many rows a layer of experts computes: each expert's tokens fill whole blocks.

Standard library only: the ledger counts with it what tokenmill/model/grouped_mlp.py computes.
"""

from __future__ import annotations

# A matrix product of fewer rows is slow, of more is padded too much.
_LEAST_ROWS, _MOST_ROWS = 8, 256


def block_rows(assignments: int, experts: int) -> int:
    """Return the rows of a block: half of what an expert gets on the average, a power of two."""
    rows = _LEAST_ROWS
    while rows < _MOST_ROWS and 4 * rows <= assignments // experts:
        rows *= 2
    return rows


def most_blocks(assignments: int, experts: int) -> int:
    """Return the blocks that there is room for: as many as any choice of experts can fill.

    Args:
        assignments: Tokens times the experts of a token.
        experts: Of the layer.
    """
    return assignments // block_rows(assignments, experts) + experts


def padded_rows(assignments: int, experts: int) -> int:
    """Return the rows that there is room for, of tokens and of padding."""
    return most_blocks(assignments, experts) * block_rows(assignments, experts)
