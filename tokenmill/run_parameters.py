"""What may be given anew for each run of a compiled pipeline, and how the steps take it.

On Kubeflow Pipelines and Vertex AI these are the spec's runtime parameters
(pipeline/runners/run_parameters.py). They come to an executor as execution properties of their
own, beside the JSON that holds all settings, and win over it. A local run has none: the
configuration says it.
"""

import math
from collections.abc import Mapping
from typing import Any

from tokenmill.errors import TokenmillError

# A runtime parameter has always a value: these say that there is no limit.
NO_LIMIT = -1.0
ALL_STEPS = 0

LEDGER_PARAMETERS: dict[str, type] = {
    "max_usd": float,
    "max_hours": float,
    "price_usd_per_chip_hour": float,
    "epochs": float,
    "max_steps": int,
}
TRAINER_PARAMETERS: dict[str, type] = {
    "seed": int,
    "learning_rate": float,
    "epochs": float,
    "max_steps": int,
}
_POSITIVE = ("epochs", "learning_rate")
_NOT_NEGATIVE = ("price_usd_per_chip_hour", "max_steps", "seed")


def given_parameters(
    exec_properties: Mapping[str, Any], parameters: Mapping[str, type]
) -> dict[str, Any]:
    """The run's parameters among the execution properties, in their types and checked.

    Engines pass numbers as doubles: a whole one comes back as an integer where one is meant.

    Args:
        exec_properties: The executor's.
        parameters: The type of each parameter that the step takes.

    Returns:
        Values by name; `max_steps` = 0 and negative limits are None.

    Raises:
        TokenmillError: A value is not of its type or out of range.
    """
    given = {}
    for name, kind in parameters.items():
        value = exec_properties.get(name)
        if value is None:
            continue
        if (
            isinstance(value, str)
            or not math.isfinite(value)
            or (kind is int and value != int(value))
        ):
            raise TokenmillError(
                f"runtime parameter {name} = {value!r}: expected "
                f"{'a whole number' if kind is int else 'a finite number'}."
            )
        if (name in _POSITIVE and value <= 0) or (name in _NOT_NEGATIVE and value < 0):
            bound = "above 0" if name in _POSITIVE else "0 or more"
            raise TokenmillError(f"runtime parameter {name} = {value}: expected {bound}.")
        given[name] = kind(value)
    if given.get("max_steps") == ALL_STEPS:
        given["max_steps"] = None
    for name in ("max_usd", "max_hours"):
        if given.get(name, 0.0) < 0:
            given[name] = None
    return given
