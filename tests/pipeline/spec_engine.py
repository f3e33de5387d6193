"""Runs a compiled Kubeflow v2 spec on this machine: each task a process, by its own command line.

It does what the engine's driver and launcher do, no more: tasks in topological order, the
ExampleGen's driver before the executor, artifacts by URI, parameters by value or by name.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any


@dataclass
class TaskRun:
    """What became of a task: its exit code, what it printed, the artifacts it left by key."""

    exit_code: int
    output: str
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)


class SpecEngine:
    """One run of a spec in a directory.

    Args:
        spec_path: The compiled PipelineJob or PipelineSpec as JSON.
        root: Stands for the engine's output directory.
        parameters: Values of runtime parameters; defaults come from the spec.
        artifacts: Where artifacts go, such as gs://bucket/tasks; None is `root`.
        environment: Variables of every task, besides this process's.
        drivers: Whether TFX's drivers are called before their steps.
    """

    def __init__(
        self,
        spec_path: pathlib.Path,
        root: pathlib.Path,
        parameters: Mapping[str, Any] | None = None,
        artifacts: str | None = None,
        environment: Mapping[str, str] | None = None,
        drivers: bool = True,
    ):
        job = json.loads(spec_path.read_text())  # a PipelineJob, or the PipelineSpec alone
        self.spec_path = spec_path
        self._spec, self._root = job.get("pipelineSpec", job), root
        self._artifacts = artifacts or str(root)
        self._environment, self._drivers = dict(environment or {}), drivers
        # Of schema 2.1 on, values are plain JSON, elsewhere and under other names.
        self._plain = self._spec["schemaVersion"] != "2.0.0"
        self._values_key = "parameterValues" if self._plain else "parameters"
        given = dict(parameters or {})
        if not self._plain:
            given = {name: _as_value(value) for name, value in given.items()}
        declared = self._spec["root"].get("inputDefinitions", {}).get("parameters", {})
        self._parameters = {
            **{name: p["defaultValue"] for name, p in declared.items() if "defaultValue" in p},
            **job.get("runtimeConfig", {}).get(self._values_key, {}),
            **given,
        }
        self.runs: dict[str, TaskRun] = {}

    def run(self, until: str | None = None) -> dict[str, TaskRun]:
        """Runs what has not succeeded yet; a task whose upstream failed does not start.

        Nothing after the task `until` runs.
        """
        tasks = self._spec["root"]["dag"]["tasks"]
        graph = {name: set(task.get("dependentTasks", ())) for name, task in tasks.items()}
        for name in TopologicalSorter(dict(sorted(graph.items()))).static_order():
            upstream = [self.runs.get(before) for before in graph[name]]
            if any(before is None or before.exit_code for before in upstream):
                continue
            if name not in self.runs or self.runs[name].exit_code:
                self.runs[name] = self._run_task(name, tasks[name])
            if name == until:
                break
        return self.runs

    def _run_task(self, name: str, task: dict[str, Any]) -> TaskRun:
        component = self._spec["components"][task["componentRef"]["name"]]
        executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]
        directory = self._root / name
        directory.mkdir(parents=True, exist_ok=True)
        attempt = directory / f"attempt-{len(list(directory.iterdir()))}"
        output_file = attempt / "executor_output.json"
        outputs = {
            key: {
                "name": f"{name}.{key}",
                "uri": f"{self._artifacts}/{name}/{attempt.name}/{key}",
                "type": definition["artifactType"],
            }
            for key, definition in component.get("outputDefinitions", {})
            .get("artifacts", {})
            .items()
        }
        invocation = {
            "inputs": self._inputs(task),
            "outputs": {
                "artifacts": {key: {"artifacts": [value]} for key, value in outputs.items()},
                "outputFile": str(output_file),
            },
        }
        container = executor["container"]
        driver = container.get("lifecycle", {}).get("preCacheCheck")
        printed = ""
        for command in [driver] * bool(driver and self._drivers) + [container]:
            result = _start(command, invocation, attempt, self._environment)
            printed += result.stdout
            if result.returncode:
                return TaskRun(result.returncode, printed)
            _update(outputs, json.loads(output_file.read_text()))
        return TaskRun(0, printed, outputs)

    def _inputs(self, task: dict[str, Any]) -> dict[str, Any]:
        given = task.get("inputs", {})
        artifacts = {}
        for key, source in given.get("artifacts", {}).items():
            producer = source["taskOutputArtifact"]
            artifact = self.runs[producer["producerTask"]].artifacts[producer["outputArtifactKey"]]
            artifacts[key] = {"artifacts": [artifact]}
        parameters = {}
        for key, source in given.get("parameters", {}).items():
            if "componentInputParameter" in source:
                parameters[key] = self._parameters[source["componentInputParameter"]]
            else:
                name = "constant" if self._plain else "constantValue"
                parameters[key] = source["runtimeValue"][name]
        return {"artifacts": artifacts, self._values_key: parameters}


def _start(
    command: dict[str, Any],
    invocation: dict[str, Any],
    attempt: pathlib.Path,
    environment: Mapping[str, str],
) -> subprocess.CompletedProcess:
    attempt.mkdir(parents=True, exist_ok=True)
    words = [*command["command"], *command.get("args", ())]
    words = [json.dumps(invocation) if word == "{{$}}" else word for word in words]
    # The image's `python` is the one that has the project.
    words[0] = sys.executable if words[0] == "python" else words[0]
    return subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=attempt,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
    )


def _update(outputs: dict[str, dict[str, Any]], written: dict[str, Any]) -> None:
    for key, artifacts in written.get("artifacts", {}).items():
        (artifact,) = artifacts["artifacts"]
        outputs[key] = {
            **outputs[key],
            "uri": artifact.get("uri") or outputs[key]["uri"],
            "metadata": artifact.get("metadata", {}),
        }


def _as_value(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
