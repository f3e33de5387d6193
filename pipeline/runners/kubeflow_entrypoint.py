"""What a step's container runs: TFX's own entry point, and what tokenmill has to add.

    python -m pipeline.runners.kubeflow_entrypoint --step=NAME --pipeline=NAME --root=DIR  ..TFX's
    python -m pipeline.runners.kubeflow_entrypoint --driver  ..TFX's

TFX finds the class of an output by its type: its own by name, others as an import path. Kubeflow's
own type system.HTML is neither; it is added to TFX's names before TFX's module runs. The step
leaves a record of itself (tokenmill/contracts/step_execution.py), and ends as its executor did,
whatever a native library does at the end of the process. `--driver` runs TFX's driver of the
ExampleGen, which an engine calls before that step, to such an end, too.
"""

import argparse
import json
import os
import runpy
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from tokenmill.contracts.model_origin import RUN_ID_VARIABLE
from tokenmill.contracts.step_execution import (
    ArtifactVersion,
    StepExecution,
    write_step_execution,
)
from tokenmill.files import read_json
from tokenmill.process_end import end_without_destructors

_DRIVER = "tfx.orchestration.kubeflow.v2.file_based_example_gen.driver"
_EXECUTOR = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
_INVOCATION = "--json_serialized_invocation_args"


def main() -> None:
    """Run the step or the driver that the command line says."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--driver", action="store_true")
    for name in ("--step", "--pipeline", "--root"):
        parser.add_argument(name, default="")
    ours, theirs = parser.parse_known_args()
    sys.argv[1:] = theirs
    if ours.driver:
        runpy.run_module(_DRIVER, run_name="__main__", alter_sys=True)
    else:
        _run_step(ours, json.loads(theirs[theirs.index(_INVOCATION) + 1]))


def _run_step(ours: argparse.Namespace, invocation: Mapping[str, Any]) -> None:
    started = time.time()
    inputs, outputs = invocation.get("inputs", {}), invocation["outputs"]
    execution = StepExecution(
        pipeline=ours.pipeline,
        run_id=run_of(ours.step, outputs),
        step=ours.step,
        state="running",
        started=started,
        ended=None,
        inputs={
            key: [artifact["uri"] for artifact in listed["artifacts"]]
            for key, listed in inputs.get("artifacts", {}).items()
        },
        outputs={},
        properties=_plain(inputs.get("parameterValues") or inputs.get("parameters", {})),
    )
    os.environ[RUN_ID_VARIABLE] = execution.run_id
    _record(ours.root, execution)
    from tfx.orchestration.kubeflow.v2 import compiler_utils

    from components.artifacts import HTML

    compiler_utils.TITLE_TO_CLASS_PATH[HTML.TYPE_NAME] = f"{HTML.__module__}.{HTML.__qualname__}"
    succeeded = False
    try:
        runpy.run_module(_EXECUTOR, run_name="__main__", alter_sys=True)
        succeeded = True
    except SystemExit as error:  # of absl's app.run
        succeeded = error.code in (None, 0)
        raise
    finally:
        state = "complete" if succeeded else "failed"
        update = {"state": state, "ended": time.time()}
        if succeeded:
            update["outputs"] = _outputs(read_json(outputs["outputFile"]), outputs)
        _record(ours.root, execution.model_copy(update=update))


def run_of(step: str, outputs: Mapping[str, Any]) -> str:
    """Return the name of a run, from the URIs of what a step is to write.

    Engines put an artifact at ROOT/../RUN/TASK/../KEY, where TASK begins with the step's name.
    """
    for listed in outputs.get("artifacts", {}).values():
        parts = listed["artifacts"][0]["uri"].split("/")
        for place in range(len(parts) - 1, 0, -1):
            if parts[place] == step or parts[place].startswith(f"{step}_"):
                return parts[place - 1]
    return "unknown"


def _outputs(
    written: Mapping[str, Any], planned: Mapping[str, Any]
) -> dict[str, list[ArtifactVersion]]:
    uris = {key: listed["artifacts"][0]["uri"] for key, listed in planned["artifacts"].items()}
    return {
        key: [
            ArtifactVersion(
                uri=artifact.get("uri") or uris[key],
                properties=_plain(artifact.get("metadata", {})),
            )
            for artifact in listed["artifacts"]
        ]
        for key, listed in written.get("artifacts", {}).items()
    }


def _plain(values: Mapping[str, Any]) -> dict[str, float | str]:
    """Return those values that are numbers or strings; schema 2.0 says their types beside them."""
    found: dict[str, float | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            whole = value.get("intValue")
            value = next(iter(value.values()), None) if whole is None else int(whole)
        if isinstance(value, (int, float, str)):
            found[name] = value
    return found


def _record(root: str, execution: StepExecution) -> None:
    """Write the record; a step that did its work does not fail by it."""
    try:
        write_step_execution(root, execution)
    except Exception:
        traceback.print_exc()
        print(
            f"warning: {root}: the record of {execution.step} could not be written; why, runs and "
            "lineage will not know of it",
            file=sys.stderr,
        )


if __name__ == "__main__":
    end_without_destructors(main)
