"""Benchmark tasks: YAML files of lm-evaluation-harness, those that tokenmill ships and others.

Read without the harness, which lives in an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import data.benchmarks
from tokenmill.errors import TokenmillError
from tokenmill.nearest import did_you_mean

_SHIPPED = Path(data.benchmarks.__file__).parent
SHIPPED_TASKS = tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))


class _Loader(yaml.SafeLoader):
    """Loads a task file without importing the Python that it may name (!function)."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")


@dataclass(frozen=True)
class BenchmarkTask:
    """A task whose file is here.

    Attributes:
        name: By which its results go.
        path: Of its YAML file.
        metrics: Names of what it measures; empty where the file leaves that to the harness.
        chance: What guessing scores, by metric, as its `metadata.chance` says.
        data_files: Paths of its texts, where they are local (`dataset_path: json`).
    """

    name: str
    path: str
    metrics: tuple[str, ...]
    chance: Mapping[str, float]
    data_files: tuple[str, ...]

    def fingerprint(self) -> str:
        """Return a hash of the task's file and texts."""
        digest = hashlib.sha256()
        for path in (self.path, *self.data_files):
            digest.update(hashlib.sha256(_read(path)).digest())
        return digest.hexdigest()[:16]

    def texts(self) -> Iterator[str]:
        """Yield every text of its records: questions, answers, all choices.

        Raises:
            TokenmillError: The texts are not here, or a record is no JSON.
        """
        if not self.data_files:
            raise TokenmillError(
                f"{self.path}: its texts are not in local JSON files (dataset_path: json with "
                "dataset_kwargs.data_files).",
                "Name files with them in curate.benchmark_files.",
            )
        for path in self.data_files:
            content = _read(path)
            try:
                if path.endswith(".jsonl"):
                    yield from _strings([json.loads(line) for line in content.splitlines() if line])
                else:
                    yield from _strings(json.loads(content))
            except ValueError as error:
                raise TokenmillError(
                    f"{path}: no JSON: {error}.", "Correct the record, or leave it out."
                ) from None


def find_tasks(given: Sequence[str], option: str) -> list[BenchmarkTask]:
    """Return the tasks of names and YAML files, in their order, each once.

    Args:
        given: Names of shipped tasks, or paths of YAML files.
        option: What they were given by, for messages.

    Raises:
        TokenmillError: There is no such task or file, the file is none of a task, or two tasks
            have one name.
    """
    found: dict[str, BenchmarkTask] = {}
    for each in dict.fromkeys(given):
        if is_task_file(each):
            task = read_task(os.path.abspath(each))
        elif each in SHIPPED_TASKS:
            task = read_task(str(_SHIPPED / f"{each}.yaml"))
        else:
            raise TokenmillError(
                f"{option}: there is no task {each!r}{did_you_mean(each, SHIPPED_TASKS)}; "
                f"expected {', '.join(SHIPPED_TASKS)} or the path of a YAML file.",
                "A task file is described in docs/benchmarks.md.",
            )
        if task.name in found:
            raise TokenmillError(
                f"{option}: {found[task.name].path} and {task.path} are both named {task.name}.",
                "Give one of them another name (task: in its file).",
            )
        found[task.name] = task
    return list(found.values())


def is_task_file(given: str) -> bool:
    """Say whether a task is given by the path of its file."""
    return given.endswith((".yaml", ".yml"))


def read_task(path: str) -> BenchmarkTask:
    """Read a task's file.

    Raises:
        TokenmillError: It is missing, or no task of lm-evaluation-harness.
    """
    try:
        values = yaml.load(_read(path), _Loader)
    except yaml.YAMLError as error:
        raise TokenmillError(f"{path}: no YAML: {error}.", "Correct the file.") from None
    if not isinstance(values, dict) or not isinstance(values.get("task"), str):
        raise TokenmillError(
            f"{path}: expected a task of lm-evaluation-harness with a key task, its name.",
            "A task file is described in docs/benchmarks.md.",
        )
    metadata = values.get("metadata") or {}
    chance = metadata.get("chance", {}) if isinstance(metadata, dict) else {}
    if not isinstance(chance, dict) or not all(
        isinstance(value, int | float) for value in chance.values()
    ):
        raise TokenmillError(
            f"{path}: metadata.chance is {chance!r}, expected a number by metric.",
            "As in: chance: {acc: 0.25}.",
        )
    return BenchmarkTask(
        name=values["task"],
        path=path,
        metrics=tuple(
            each["metric"]
            for each in values.get("metric_list") or ()
            if isinstance(each, dict) and isinstance(each.get("metric"), str)
        ),
        chance={str(metric): float(value) for metric, value in chance.items()},
        data_files=tuple(_data_files(path, values)),
    )


def _data_files(path: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of local texts; they are relative to the task's file."""
    if values.get("dataset_path") != "json":
        return
    files = (values.get("dataset_kwargs") or {}).get("data_files") or ()
    for name in _strings(files):
        yield os.path.join(os.path.dirname(path), name)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TokenmillError(
            f"{path}: {error.strerror}.", "Expected a file of a benchmark task there."
        ) from None
