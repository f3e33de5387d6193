"""Benchmark tasks of one SavedModel: serve it, let the harness score it, write benchmark.json."""

import os
import time
from collections.abc import Sequence
from typing import Any

from serving.benchmark.environment import harness_python
from serving.benchmark.harness import run_harness
from serving.benchmark.server import serve_for_harness
from serving.saved_model import limit_threads
from tokenmill.benchmark_tasks import SHIPPED_TASKS, find_tasks, is_task_file
from tokenmill.contracts.benchmark import BenchmarkReport, write_benchmark
from tokenmill.contracts.served_model import read_served_model
from tokenmill.errors import TokenmillError


def run_benchmarks(
    saved_model: str, tasks: Sequence[str], output: str, online: bool = False
) -> BenchmarkReport:
    """Score a SavedModel by benchmark tasks; write benchmark.json and the samples.

    Args:
        saved_model: Its directory, not that of versions.
        tasks: Names of shipped tasks, paths of task files; with others, names of the harness's own.
        output: An existing directory.
        online: Whether the harness may download the texts of its own tasks.

    Raises:
        TokenmillError: The model is no causal language model, a task is unknown, the harness cannot
            be installed, or fails.
    """
    started = time.monotonic()
    head = read_served_model(saved_model).model_shape.head
    if head != "lm":
        raise TokenmillError(
            f"{saved_model}: a model with the head {head!r} has no likelihood of a text.",
            "Benchmark tasks are for models of train.task = causal-lm.",
        )
    here = [task for task in tasks if is_task_file(task) or task in SHIPPED_TASKS]
    own = [task for task in tasks if task not in here]
    found = find_tasks(here, "--tasks")
    chance = {task.name: task.chance for task in found}
    # Paths in a file are relative to it, and the harness takes them as relative to its directory.
    groups: dict[tuple[str, bool], list[str]] = {}
    for task in found:
        groups.setdefault((os.path.dirname(task.path), bool(task.data_files)), []).append(task.path)
    if own:
        groups[output, False] = own
    python = harness_python()
    results, version = {}, ""
    with serve_for_harness(saved_model) as served:
        for (directory, texts_are_here), names in groups.items():
            scored = run_harness(
                python, served, names, directory, output, chance, texts_are_here, online
            )
            results.update(scored.tasks)
            version = scored.version
    report = BenchmarkReport(
        model=os.path.abspath(saved_model),
        harness=version,
        seconds=time.monotonic() - started,
        tasks=results,
    )
    write_benchmark(output, report)
    return report


def run_in_own_process(
    start_seconds: float, saved_model: str, tasks: Sequence[str], output: str
) -> dict[str, Any]:
    """Do what `run_benchmarks` does, as tokenmill.run_in_subprocess calls it.

    Args:
        start_seconds: What the process took to start.
        saved_model: The SavedModel's directory.
        tasks: Names and paths of tasks.
        output: An existing directory.

    Returns:
        Nothing: benchmark.json says it.
    """
    limit_threads(saved_model, None)
    run_benchmarks(saved_model, tasks, output)
    return {}
