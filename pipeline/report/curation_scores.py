"""The scores of a preview: what the scorer is worth, how a sample scores, what thresholds keep."""

import math
from typing import Any

from rich.console import Console

from pipeline.report.curation import number
from pipeline.report.tables import escape, plain_table, share_text
from tokenmill.visible import visible

_BAR = 40
_SOURCES_SHOWN = 12


def print_scores(console: Console, found: dict[str, Any]) -> None:
    """Print what `components.curate.quality.view.view_scores` found."""
    scored = found["scored"]
    console.print(
        f"\n[bold]Learned quality[/] of {scored['documents']:,} documents that stay so far"
    )
    if found["kind"] == "linear":
        left_out = ", ".join(
            f"{count:,} {reason}" for reason, count in found["left_out"].items() if count
        )
        console.print(
            f"learned from {found['positive']['documents']:,} positive and "
            f"{found['negative']['documents']:,} negative examples"
            + (f"; left out: {left_out}" if left_out else "")
        )
        console.print(
            f"on held-out examples a positive one scores higher than a negative one in "
            f"{found['roc_auc']:.1%} of pairs"
        )
        if found["roc_auc"] < 0.5 + chance_range(found):
            console.print(
                "[yellow]which guessing does as well: the scorer does not tell these examples "
                "apart[/]"
            )
    _print_histogram(console, found["histogram"])
    table = plain_table("min_score", "keeps docs", "bytes", "recall", "precision")
    for line in found["thresholds"]:
        shown = f"{line['threshold']:g}"
        cells = [share_text(line[name]) for name in ("documents", "bytes")]
        cells += [
            "–" if line[name] is None else share_text(line[name])
            for name in ("recall", "precision")
        ]
        table.add_row(f"[bold]{shown}[/]" if line["is_set"] else shown, *cells)
    console.print(
        "\n[bold]What a threshold keeps[/] (of the sample; recall and precision of examples)"
    )
    console.print(table)
    if found["top_shares"]:
        table = plain_table("source", "top share", "least score", "docs")
        shares = found["top_shares"]
        for source in sorted(shares, key=lambda name: shares[name]["threshold"])[:_SOURCES_SHOWN]:
            line = shares[source]
            cells = [number(line["threshold"]), share_text(line["documents"])]
            table.add_row(escape(visible(source)), share_text(line["share"]), *cells)
        console.print("\n[bold]What a top share keeps[/] of what else stays, by source")
        console.print(table)
        if (more := len(shares) - _SOURCES_SHOWN) > 0:
            console.print(f"and {more:,} more sources (--json has all)")


def chance_range(found: dict[str, Any]) -> float:
    """Return how far above one half the share of pairs may be by chance, in 39 of 40 cases.

    Args:
        found: With the numbers of held-out examples, of which the variance follows (Mann and
            Whitney 1947).
    """
    positive, negative = (found[name]["held_out"] for name in ("positive", "negative"))
    return 1.96 * math.sqrt((positive + negative + 1) / (12 * positive * negative))


def _print_histogram(console: Console, histogram: dict[str, list[int]]) -> None:
    """Print documents and bytes by tenth of the score, with a bar for the documents."""
    documents, sizes = (
        [a + b for a, b in zip(counts[::2], counts[1::2], strict=True)]
        for counts in (histogram["documents"], histogram["bytes"])
    )
    table = plain_table("score", "", "documents", "bytes", left=2)
    for tenth, (count, size) in enumerate(zip(documents, sizes, strict=True)):
        bar = "█" * round(_BAR * count / max(1, *documents))
        score = f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}"
        table.add_row(score, bar, f"{count:,}", f"{size:,}")
    console.print(table)
