"""What was measured of a mixture of experts, as it is read and told on the screen and the page."""

import os
from collections.abc import Iterable
from typing import Any

from components.train.telemetry.metrics_log import METRICS_NAME
from tokenmill.contracts.base import check_document
from tokenmill.contracts.training import ExpertLoads
from tokenmill.number_format import count

_MOST_NAMED = 12


def expert_loads(uri: str, lines: Iterable[dict[str, Any]]) -> list[ExpertLoads]:
    """Return the loads of experts in a training's log, by step; none of a dense model.

    Args:
        uri: A ModelRun artifact, for errors.
        lines: What `read_metrics` read there.

    Raises:
        TokenmillError: A line is of another version.
    """
    path = os.path.join(uri, METRICS_NAME)
    return [
        check_document(path, line, ExpertLoads)
        for line in lines
        if line.get("event") == "expert_load"
    ]


def describe_dead(time: ExpertLoads) -> str:
    """Say how many experts are dead at a time, which, and what to do; empty if none is."""
    dead = [of for of in time.layers if of.dead_experts]
    number = sum(len(of.dead_experts) for of in dead)
    if not number:
        return ""
    named = "; ".join(
        f"layer {of.layer}: {', '.join(map(str, of.dead_experts[:_MOST_NAMED]))}"
        + _more(len(of.dead_experts), "")
        for of in dead[:_MOST_NAMED]
    )
    experts = sum(len(of.load_shares) for of in time.layers)
    return (
        f"{count(number)} of {count(experts)} experts {'is' if number == 1 else 'are'} dead, with "
        f"under a hundredth of the mean load: {named}{_more(len(dead), ' layers')}. A dead expert "
        "takes memory and learns next to nothing: raise model.balance_weight, or choose "
        "model.balance where that is none"
    )


def _more(number: int, what: str) -> str:
    """Say how many are not named."""
    return f" and {count(number - _MOST_NAMED)} more{what}" if number > _MOST_NAMED else ""
