"""The parameters of a run as engines pass them: numbers as doubles, always with a value."""

import inspect

import pytest

import components
from components import artifacts
from components.ledger.config import BudgetConfig, CostConfig, make_ledger_job
from components.train.config import TrainConfig, TrainingJob
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape
from tokenmill.run_parameters import (
    LEDGER_PARAMETERS,
    TRAINER_PARAMETERS,
    given_parameters,
)
from tokenmill.training_plan import TrainingPlan

SHAPE = ModelShape(
    layers=1, d_model=8, heads=1, d_ff=8, vocab_size=9, sequence_length=8, positions="rope",
    norm="rms", use_bias=False, mlp="gelu", tie_embeddings=True,
)  # fmt: skip
JOB = TrainingJob(shape=SHAPE, train=TrainConfig(learning_rate=0.1, max_steps=9), seed=1)


def with_training_parameters(exec_properties):
    return JOB.with_parameters(given_parameters(exec_properties, TRAINER_PARAMETERS))


def test_without_parameters_nothing_changes():
    assert with_training_parameters({"job": "{}"}) == JOB


def test_whole_doubles_come_back_as_integers():
    changed = with_training_parameters({"max_steps": 7.0, "seed": 3.0, "epochs": 2})
    expected = JOB.model_dump()
    expected["seed"] = 3
    expected["train"] |= {"epochs": 2.0, "max_steps": 7}
    assert changed.model_dump() == expected
    assert type(changed.train.max_steps) is type(changed.seed) is int
    assert type(changed.train.epochs) is float


def test_no_limit_and_all_steps():
    given = given_parameters({"max_usd": -1.0, "max_hours": 0.0, "max_steps": 0}, LEDGER_PARAMETERS)
    assert given == {"max_usd": None, "max_hours": 0.0, "max_steps": None}


@pytest.mark.parametrize("chip", ["cpu-vcpu", "h100"])
def test_a_price_is_the_users_and_that_of_the_other_cores_if_those_are_the_chips(chip):
    job = make_ledger_job(
        CostConfig(chip=chip, chips=2, mfu=0.4, price_usd_per_chip_hour=2.0),
        BudgetConfig(max_usd=5.0, max_epochs=3.0),
        TrainingPlan(),
        SHAPE,
        checkpoints_kept=2,
    )
    own = job.vcpu_price_usd_per_hour

    def told(**parameters):
        return job.with_parameters(given_parameters(parameters, LEDGER_PARAMETERS))

    assert told(price_usd_per_chip_hour=2.0) == job
    changed = told(price_usd_per_chip_hour=3, max_usd=-1)
    assert changed.price.usd_per_chip_hour == 3.0
    assert changed.price.source == "cost.price_usd_per_chip_hour"
    assert changed.budget == BudgetConfig(max_usd=None, max_hours=None, max_epochs=3.0)
    assert changed.vcpu_price_usd_per_hour == (3.0 if chip == "cpu-vcpu" else own)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", 1.5, "whole number"),
        ("max_steps", "many", "whole number"),
        ("max_steps", -1, "0 or more"),
        ("learning_rate", 0.0, "above 0"),
        ("epochs", -1.0, "above 0"),
    ],
)
def test_a_wrong_value_is_one_message_with_its_name(name, value, words):
    with pytest.raises(TokenmillError) as caught:
        given_parameters({name: value}, TRAINER_PARAMETERS)
    assert name in caught.value.message
    assert words in caught.value.message


def test_every_artifact_type_is_importable_by_the_name_that_containers_use():
    for _, kind in inspect.getmembers(artifacts, inspect.isclass):
        # pipeline/runners/kubeflow_entrypoint.py tells TFX the class of Kubeflow's own type.
        if kind.__module__ == artifacts.__name__ and kind is not artifacts.HTML:
            package, _, name = kind.TYPE_NAME.rpartition(".")
            assert package == "components"
            assert getattr(components, name) is kind


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", sorted({**LEDGER_PARAMETERS, **TRAINER_PARAMETERS}))
def test_a_parameter_is_finite(name, value):
    with pytest.raises(TokenmillError, match=f"{name} = .*expected"):
        given_parameters({name: value}, {**LEDGER_PARAMETERS, **TRAINER_PARAMETERS})
