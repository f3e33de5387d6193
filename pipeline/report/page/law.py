"""A fitted scaling law beside the published ones, as a table of a page."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.ladder_loss import author, constant_rows
from pipeline.report.page.content import DataTable
from tokenmill.contracts.ladder import Constants, PublishedLaw


def law_table(
    constants: Constants, published: Sequence[PublishedLaw], level: float
) -> tuple[str, DataTable]:
    """Return a title and a table with a row a constant.

    Args:
        constants: Of the text's own ladder.
        published: Laws of others' runs.
        level: Coverage of the intervals, a fraction.
    """
    return (
        "The law of this text: L = e + ((a / N^alpha)^(1/gamma) + (b / D^beta)^(1/gamma))^gamma",
        DataTable(
            ("constant", "this text", f"{level:.0%} interval", *map(author, published)),
            list(constant_rows(constants, published)),
            "This text's in bits per byte, N in matrix products; the published ones in nats per "
            "token of their own vocabulary and data, so that only exponents and gamma compare."
            + "".join(f" Of the published laws {law.note}." for law in published[:1] if law.note),
        ),
    )
