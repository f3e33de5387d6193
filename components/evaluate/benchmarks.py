"""Benchmark tasks of a run's model, scored before it is blessed, and what they have to reach."""

import os
import tempfile
from collections.abc import Mapping, Sequence

from tokenmill.benchmark_tasks import BenchmarkTask, find_tasks
from tokenmill.contracts.benchmark import BenchmarkTaskResult, read_benchmark
from tokenmill.errors import TokenmillError
from tokenmill.run_in_subprocess import run_in_subprocess

_OPTION = "evaluate.benchmarks"
# By name: a step does not import the server, which runs in a process of its own.
_FUNCTION = "serving.benchmark.run.run_in_own_process"
_INSTALL = "serving.benchmark.environment.make_in_own_process"
_DIRECTORY = "benchmark"


def resolve_benchmarks(
    given: Sequence[str], thresholds: Mapping[str, float]
) -> list[BenchmarkTask]:
    """Return the tasks that evaluate.benchmarks names.

    Args:
        given: Names of shipped tasks and paths of task files.
        thresholds: evaluate.benchmark_thresholds, by "task/metric".

    Raises:
        TokenmillError: There is no such task, or a threshold is on what none measures.
    """
    tasks = find_tasks(given, _OPTION)
    measured = {f"{task.name}/{metric}" for task in tasks for metric in task.metrics}
    open_ended = tuple(f"{task.name}/" for task in tasks if not task.metrics)
    for name in thresholds:
        # With a filter the harness's name is longer: exact_match,strict-match.
        if name.partition(",")[0] not in measured and not name.startswith(open_ended):
            expected = ", ".join(sorted(measured)) or f"nothing without {_OPTION}"
            raise TokenmillError(
                f"evaluate.benchmark_thresholds: {name!r} is not measured; expected {expected}.",
                f'Name it "task/metric", of a task of {_OPTION}.',
            )
    return tasks


def install_harness() -> None:
    """Install lm-evaluation-harness into an environment of its own, where it is not there yet.

    Raises:
        TokenmillError: It cannot be installed, such as without a network.
    """
    run_in_subprocess(_INSTALL, "the installation of lm-evaluation-harness", "Run it again.")


def score_benchmarks(
    saved_model: str, tasks: Sequence[str], evaluation_uri: str
) -> dict[str, BenchmarkTaskResult]:
    """Score a model in a process of its own; leave benchmark.json and the samples.

    Args:
        saved_model: Directory of the SavedModel.
        tasks: Names and paths of tasks.
        evaluation_uri: The ModelEvaluation artifact; the files go into `benchmark/` there.

    Returns:
        Results by the task's name.

    Raises:
        TokenmillError: The harness cannot be installed, or fails.
    """
    from tfx.utils import io_utils  # loads TensorFlow, which the checks before do without

    with tempfile.TemporaryDirectory(prefix="tokenmill-benchmark-") as temporary:
        output = os.path.join(temporary, "output")
        os.makedirs(output)
        if "://" in saved_model:  # the server reads local files
            local = os.path.join(temporary, "model")
            io_utils.copy_dir(saved_model, local)
            saved_model = local
        try:
            run_in_subprocess(
                _FUNCTION,
                "the benchmark's process",
                "It needs the memory of the model and of its cache: give the machine more, or "
                f"leave {_OPTION} out.",
                saved_model=saved_model,
                tasks=list(tasks),
                output=output,
            )
        finally:  # the harness's log, too, if it failed
            io_utils.copy_dir(output, os.path.join(evaluation_uri, _DIRECTORY))
        return read_benchmark(output).tasks


def below_thresholds(
    results: Mapping[str, BenchmarkTaskResult], thresholds: Mapping[str, float]
) -> list[str]:
    """Return a sentence for each number that is worse than its threshold.

    Args:
        results: By the task's name.
        thresholds: The worst values that are still blessed, by "task/metric".
    """
    found = []
    for name, threshold in thresholds.items():
        task, _, metric = name.partition("/")
        number = results[task].metrics.get(metric)
        value = None if number is None else number.value
        if number is None or value is None:
            found.append(
                f"{name} could not be measured, wanted {threshold:g} or better; measured were "
                f"{', '.join(sorted(results[task].metrics)) or 'none'}"
            )
        elif value < threshold if number.higher_is_better else value > threshold:
            wanted = "at least" if number.higher_is_better else "at most"
            found.append(
                f"{name} is {value:.4g}, wanted {wanted} {threshold:g}, missed by "
                f"{abs(value - threshold):.3g}"
            )
    return found
