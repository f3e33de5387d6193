"""Accelerators of Vertex AI by its own names, and their regions as far as known.

Standard library only. The facts of vertex_accelerators.csv have their source and date there; an
accelerator without regions is one whose regions were not looked up.
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path

from data.catalog.rows import read_rows

ACCELERATORS_FILE = Path(__file__).with_name("vertex_accelerators.csv")


@functools.cache
def load_accelerators() -> dict[str, tuple[str, ...]]:
    """Read the regions by AcceleratorType; empty where they are not known."""
    return {
        row.text("accelerator"): tuple(row.text("regions").split())
        for row in read_rows(ACCELERATORS_FILE)
    }


def complaint(accelerator: str, region: str | None) -> str | None:
    """Say what is wrong with a pair of accelerator and region; None if nothing is known to be.

    Args:
        accelerator: A name of Vertex AI's AcceleratorType.
        region: Such as europe-west4; None checks the name only.
    """
    known = load_accelerators()
    if accelerator not in known:
        asked = accelerator.upper().replace("-", "_")
        kind = asked.rpartition("_")[2]
        near = [name for name in known if kind and kind in name.split("_")]
        near += difflib.get_close_matches(asked, known, n=3, cutoff=0.4)
        near = list(dict.fromkeys(near))[:4]
        return (
            f"{accelerator!r} is no accelerator of Vertex AI that "
            f"{ACCELERATORS_FILE.name} knows; the nearest are {', '.join(near or sorted(known))}"
        )
    regions = known[accelerator]
    if region is None or not regions or region in regions:
        return None
    near = difflib.get_close_matches(region, regions, n=3, cutoff=0.0)
    return (
        f"{accelerator} is not offered in {region}, says {ACCELERATORS_FILE.name}; it is in "
        f"{', '.join(regions)} (nearest name: {near[0]})"
    )
