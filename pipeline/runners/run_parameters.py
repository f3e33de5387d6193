"""The runtime parameters of a compiled spec: what a user changes from run to run.

Their defaults are the configuration's values, so that a run without any is the one that the
configuration says. Imports TFX.
"""

from typing import Any

from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_component_specs

from pipeline.config import Config
from tokenmill.run_parameters import (
    ALL_STEPS,
    LEDGER_PARAMETERS,
    NO_LIMIT,
    TRAINER_PARAMETERS,
)

INPUT = "input"


def add_run_parameters(
    steps: list[BaseNode], config: Config, manifest_directory: str
) -> dict[str, Any]:
    """Declare the parameters on the steps that take them.

    Args:
        steps: All steps of the pipeline.
        config: The configuration, placed on the engine's storage.
        manifest_directory: The default input.

    Returns:
        The value of each that the configuration says.
    """
    defaults = _defaults(config)
    values: dict[str, Any] = {INPUT: manifest_directory}
    by_id = {step.id: step for step in steps}
    for node, parameters in (("TokenLedger", LEDGER_PARAMETERS), ("Trainer", TRAINER_PARAMETERS)):
        for name, kind in parameters.items():
            values[name] = kind(defaults[name])
            by_id[node].exec_properties[name] = RuntimeParameter(name, kind, values[name])
    ingest = by_id["CorpusExampleGen"].exec_properties
    ingest[standard_component_specs.INPUT_BASE_KEY] = RuntimeParameter(
        INPUT, str, manifest_directory
    )
    return values


def _defaults(config: Config) -> dict[str, Any]:
    budget, train = config.budget, config.train
    return {
        "max_usd": NO_LIMIT if budget.max_usd is None else budget.max_usd,
        "max_hours": NO_LIMIT if budget.max_hours is None else budget.max_hours,
        "price_usd_per_chip_hour": config.ledger_job().price.usd_per_chip_hour,
        "seed": config.run.seed,
        "learning_rate": train.learning_rate,
        "epochs": train.epochs,
        "max_steps": ALL_STEPS if train.max_steps is None else train.max_steps,
    }
