"""Runtime parameters on the command line, and specs that are none."""

import json

import pytest
from click.testing import CliRunner

from pipeline.cli import cli

JOB = {
    "pipelineSpec": {
        "root": {
            "inputDefinitions": {
                "parameters": {
                    "max_usd": {"type": "DOUBLE"},
                    "max_steps": {"type": "INT"},
                    "input": {"type": "STRING"},
                    "seed": {"parameterType": "NUMBER_INTEGER"},  # as schema 2.1 has it
                    "epochs": {"parameterType": "NUMBER_DOUBLE"},
                }
            }
        }
    }
}


def submit(path, *parameters):
    words = [word for parameter in parameters for word in ("--parameter", parameter)]
    command = ["submit", str(path), "--project", "p", "--region", "us-central1", "--dry-run"]
    return CliRunner().invoke(cli, [*command, *words])


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(JOB))
    return path


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("max_usd=cheap", ("max_usd=cheap", "DOUBLE")),
        ("max_steps=1.5", ("max_steps=1.5", "INT")),
        ("seed=1.5", ("seed=1.5", "NUMBER_INTEGER")),
        ("max_step=1", ("no such parameter", "max_steps")),
    ],
)
def test_a_wrong_parameter_is_one_message(spec, parameter, words):
    result = submit(spec, parameter)
    assert result.exit_code == 1
    for word in words:
        assert word in result.output


def test_values_get_the_types_that_the_spec_declares():
    from pipeline.runners.vertex import parse_parameters

    given = {"max_usd": "5", "max_steps": "7", "input": "gs://b/inputs/1", "seed": "3"}
    given["epochs"] = "2"
    values = parse_parameters(JOB["pipelineSpec"], given)
    assert list(values.values()) == [5.0, 7, "gs://b/inputs/1", 3, 2.0]
    assert [type(value) for value in values.values()] == [float, int, str, int, float]


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not JSON"), ("{}", "no pipelineSpec"), (None, "cannot read")]
)
def test_what_is_no_spec_is_one_message(tmp_path, text, words):
    path = tmp_path / "spec.json"
    if text is not None:
        path.write_text(text)
    result = submit(path)
    assert result.exit_code == 1
    assert words in result.output
