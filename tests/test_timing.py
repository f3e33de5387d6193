import time

import pytest
from tfx.types import standard_artifacts

from tokenmill.machine import vcpus
from tokenmill.timing import STEP_RUN, STEP_SECONDS, STEP_VCPUS, timed


class Context:
    pipeline_run_id = "run-7"


class Executor:
    def __init__(self, context=None):
        self._context = context

    @timed
    def Do(self, input_dict, output_dict, exec_properties):
        time.sleep(exec_properties["seconds"])
        return "done"


def test_every_output_says_what_its_step_took():
    outputs = {"a": [standard_artifacts.Model()], "b": [standard_artifacts.ModelRun()]}
    assert Executor(Context()).Do({}, outputs, {"seconds": 0.05}) == "done"
    for (artifact,) in outputs.values():
        assert 0.05 <= artifact.get_float_custom_property(STEP_SECONDS) < 5
        assert artifact.get_int_custom_property(STEP_VCPUS) == vcpus() >= 1
        assert artifact.get_string_custom_property(STEP_RUN) == "run-7"


def test_a_runner_without_a_run_id_leaves_it_empty():
    outputs = {"a": [standard_artifacts.Model()]}
    Executor().Do({}, outputs, {"seconds": 0.0})
    assert outputs["a"][0].get_string_custom_property(STEP_RUN) == ""


def test_a_step_that_fails_writes_nothing():
    outputs = {"a": [standard_artifacts.Model()]}
    with pytest.raises(KeyError):
        Executor().Do({}, outputs, {})
    assert not outputs["a"][0].has_custom_property(STEP_SECONDS)
