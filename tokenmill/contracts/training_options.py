"""How a training is carried out: what may change without changing what is trained.

These settings are no part of the Trainer's cache key, so that a new price or another checkpoint
interval does not train anew. The runner writes them to a file in the training directory, whose
path is the key's; the Trainer reads the file when it starts. For Kubeflow and Vertex AI, `tokenmill
compile` writes it, and the TokenLedger puts the run's own price and budget into it.
"""

import os
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import tensorflow as tf

from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.files import read_json, write_json

OPTIONS_NAME = "options.json"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Checkpoints, telemetry and money of a training run.

    Attributes:
        checkpoint_steps: Save every so many steps.
        checkpoint_seconds: Save every so many seconds. With neither, the interval is that of Daly
            (2006) for `mtbf_hours` and the measured time of a save.
        mtbf_hours: Mean time between failures of the whole run, hours.
        keep_checkpoints: The newest so many stay.
        keep_checkpoint_every_steps: Those of every so many steps stay, too.
        keep_best_checkpoint: The one of the lowest held-out loss stays, too.
        evaluate_steps: Evaluate every so many steps; None for before and after only.
        log_steps: Scalars every so many steps.
        detail_steps: Distributions and attention maps every so many steps; None for never.
        profile_steps: First and last step to profile, from 1.
        fresh: Start over, whatever checkpoints there are.
        flops_per_token: Of the training step, for MFU; None if not known.
        peak_flops_per_second: Of all chips together, FLOP/s; None if not known.
        measure_peak: Time matrix products here if the peak is not known.
        usd_per_second: Price of all chips together; None if not known.
        budget: `BudgetMeter.to_json()`, or None for no limit.
    """

    checkpoint_steps: int | None = None
    checkpoint_seconds: float | None = None
    mtbf_hours: float = 6.0
    keep_checkpoints: int = 2
    keep_checkpoint_every_steps: int | None = None
    keep_best_checkpoint: bool = True
    evaluate_steps: int | None = None
    log_steps: int = 10
    detail_steps: int | None = 500
    profile_steps: tuple[int, int] | None = None
    fresh: bool = False
    flops_per_token: float | None = None
    peak_flops_per_second: float | None = None
    measure_peak: bool = False
    usd_per_second: float | None = None
    budget: dict[str, Any] | None = None

    def write(self, training_directory: str) -> None:
        """Leaves the options where `read_options` finds them."""
        write_json(os.path.join(training_directory, OPTIONS_NAME), asdict(self))


def read_options(training_directory: str) -> RunOptions:
    """The options that the runner has left, or the defaults where there is no runner's file."""
    path = os.path.join(training_directory, OPTIONS_NAME)
    if not tf.io.gfile.exists(path):
        return RunOptions()
    known = {field.name for field in fields(RunOptions)}
    values = {name: value for name, value in read_json(path).items() if name in known}
    if values.get("profile_steps") is not None:
        values["profile_steps"] = tuple(values["profile_steps"])
    return RunOptions(**values)


def set_money(
    training_directory: str,
    usd_per_chip_hour: float,
    chips: int,
    max_usd: float | None,
    max_hours: float | None,
) -> None:
    """Puts another price and other limits into the options that are there.

    Args:
        training_directory: Where the options are.
        usd_per_chip_hour: USD for one chip for one hour.
        chips: How many.
        max_usd: Most that training may cost, USD; None for no limit.
        max_hours: Most that training may last, hours; None for no limit.
    """
    options = read_options(training_directory)
    told = {
        "price_usd_per_chip_hour": usd_per_chip_hour,
        "chips": chips,
        "max_usd": max_usd,
        "max_hours": max_hours,
    }
    replace(
        options,
        usd_per_second=usd_per_chip_hour * chips / SECONDS_PER_HOUR,
        budget={**(options.budget or {}), **told},
    ).write(training_directory)
