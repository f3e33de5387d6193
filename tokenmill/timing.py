"""Wall time of each step, recorded as custom properties of its outputs.

The cost report reads the time from its inputs' custom properties, on every runner: Kubeflow's
containers cannot ask ML Metadata for an execution.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from tokenmill.machine import vcpus

STEP_SECONDS = "step_seconds"
STEP_VCPUS = "step_vcpus"
STEP_RUN = "step_run"


def timed(do: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an executor's `Do`: its outputs get the step's seconds, cores and run.

    Custom properties: `step_seconds` (wall time of `Do`), `step_vcpus` (cores it might use) and
    `step_run` (TFX's run id; empty where the runner does not tell it to its executors).
    """

    @functools.wraps(do)
    def timed_do(self: Any, input_dict: Any, output_dict: Any, exec_properties: Any) -> Any:
        started = time.perf_counter()
        result = do(self, input_dict, output_dict, exec_properties)
        seconds = time.perf_counter() - started
        context = getattr(self, "_context", None)
        run = getattr(context, "pipeline_run_id", None) or ""
        for artifacts in output_dict.values():
            for artifact in artifacts:
                artifact.set_float_custom_property(STEP_SECONDS, seconds)
                artifact.set_int_custom_property(STEP_VCPUS, vcpus())
                artifact.set_string_custom_property(STEP_RUN, run)
        return result

    return timed_do
