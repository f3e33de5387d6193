"""One call of lm-evaluation-harness against an OpenAI-compatible server, and what it wrote."""

import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.benchmark.environment import harness_variables
from tokenmill.contracts.benchmark import BenchmarkMetric, BenchmarkTaskResult
from tokenmill.errors import TokenmillError

# Requests under way at a time; the harness sends the next as soon as one is answered.
_CONCURRENT = 8
_REQUEST_SECONDS = 600
_LOG_NAME = "lm_eval.log"
_STANDARD_ERROR = "_stderr"
# What it says where nothing of the context before a continuation is left.
_TOO_LONG = "Context length must be greater than 0"


@dataclass(frozen=True)
class Served:
    """A model behind an OpenAI-compatible server.

    Attributes:
        url: The server's root, without a slash at its end.
        model: By which requests name the model.
        context_length: Tokens of begin, prompt and answer together.
    """

    url: str
    model: str
    context_length: int


@dataclass(frozen=True)
class HarnessResults:
    """What the harness measured.

    Attributes:
        version: Of the harness.
        tasks: Results by the task's name; files of samples are in the output directory.
    """

    version: str
    tasks: dict[str, BenchmarkTaskResult]


def run_harness(
    python: str,
    served: Served,
    tasks: Sequence[str],
    directory: str,
    output: str,
    chance: Mapping[str, Mapping[str, float]],
    texts_are_here: bool,
    online: bool = False,
) -> HarnessResults:
    """Score tasks by the harness in its own process.

    Args:
        python: The Python that has the harness.
        served: What is scored.
        tasks: Paths of task files, or names of the harness's own tasks.
        directory: What paths in task files are relative to.
        output: An existing directory for samples and the harness's log.
        chance: What guessing scores, by task and metric.
        texts_are_here: Whether all texts are local files; others are in the user's cache.
        online: Whether the harness may download the texts of its own tasks.

    Raises:
        TokenmillError: The harness fails, or scores nothing.
    """
    arguments = {
        "model": served.model,
        "base_url": f"{served.url}/v1/completions",
        "tokenizer_backend": "remote",
        # It counts the generated token, and not the begin that the server puts in front.
        "max_length": served.context_length - 1,
        "max_gen_toks": min(256, served.context_length // 2),
        "num_concurrent": _CONCURRENT,
        "timeout": _REQUEST_SECONDS,
    }
    log = os.path.join(output, _LOG_NAME)
    with tempfile.TemporaryDirectory(prefix="tokenmill-lm_eval-") as temporary:
        command = [
            python, "-I", "-m", "lm_eval", "run", "--model", "local-completions",
            "--model_args", *(f"{name}={value}" for name, value in arguments.items()),
            "--tasks", *tasks, "--output_path", temporary, "--log_samples",
        ]  # fmt: skip
        offline = {} if online else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        variables = harness_variables(**offline, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
        variables.pop("OPENAI_API_KEY", None)  # not this server's
        if texts_are_here:  # no copy of them stays in the user's cache
            variables["HF_HOME"] = os.path.join(temporary, "cache")
        with open(log, "ab") as out:
            process = subprocess.Popen(
                command, cwd=directory, env=variables, stdout=out, stderr=out
            )
            try:
                code = process.wait()
            finally:
                if process.poll() is None:  # an error here, such as Ctrl-C
                    process.send_signal(signal.SIGKILL)
                    process.wait()
        if code:
            reason = _reason(log)
            if reason.startswith(_TOO_LONG):
                raise TokenmillError(
                    f"{', '.join(tasks)}: what is to be scored of an item is longer than the "
                    f"model's context, {served.context_length} tokens.",
                    f"Leave the task out, or shorten its items; {log} has more.",
                )
            raise TokenmillError(
                f"lm-evaluation-harness ended with exit code {code}: {reason}",
                f"{log} has more.",
            )
        return keep_results(temporary, output, chance)


def keep_results(
    written: str, output: str, chance: Mapping[str, Mapping[str, float]]
) -> HarnessResults:
    """Move what the harness wrote into the output directory, and read it.

    Args:
        written: The harness's --output_path.
        output: Where its results and samples go.
        chance: What guessing scores, by task and metric.

    Raises:
        TokenmillError: Results or samples are missing, of which the harness only warns.
    """
    found = sorted(Path(written).glob("*/results_*.json"))
    if not found:
        raise TokenmillError(
            "lm-evaluation-harness ended without results.",
            f"{os.path.join(output, _LOG_NAME)} has more.",
        )
    (results,) = found
    values = json.loads(results.read_text(encoding="utf-8"))
    tasks = {
        name: _task_result(name, values, _keep_samples(results, name, output), chance.get(name, {}))
        for name in sorted(values["n-samples"])
    }
    shutil.move(results, os.path.join(output, results.name))
    return HarnessResults(version=str(values["lm_eval_version"]), tasks=tasks)


def _keep_samples(results: Path, task: str, output: str) -> str:
    """Move a task's samples into the output directory; return the file's name there.

    Raises:
        TokenmillError: The harness could not write them, of which it only warns.
    """
    written = results.with_name(
        f"samples_{task}_{results.stem.removeprefix('results_')}.jsonl"  # of the same time
    )
    if not written.exists():
        raise TokenmillError(
            f"lm-evaluation-harness has not written the samples of {task}.",
            f"{os.path.join(output, _LOG_NAME)} has more.",
        )
    name = f"samples_{task}.jsonl"
    shutil.move(written, os.path.join(output, name))
    return name


def _task_result(
    task: str, values: Mapping[str, Any], samples: str, chance: Mapping[str, float]
) -> BenchmarkTaskResult:
    """Take a task's numbers out of the harness's results."""
    better = values["higher_is_better"].get(task, {})
    metrics = {}
    for key, value in values["results"][task].items():
        metric, _, metric_filter = key.partition(",")
        if not metric_filter or metric.endswith(_STANDARD_ERROR):
            continue
        name = metric if metric_filter == "none" else key
        error = values["results"][task].get(f"{metric}{_STANDARD_ERROR},{metric_filter}")
        metrics[name] = BenchmarkMetric(
            value=_finite(value),
            standard_error=_finite(error),
            chance=chance.get(name),
            higher_is_better=better.get(metric) is not False,
        )
    return BenchmarkTaskResult(
        items=values["n-samples"][task]["effective"],
        version=str(values["versions"].get(task, "")),
        metrics=metrics,
        samples=samples,
    )


def _finite(value: Any) -> float | None:
    """Return a finite number; None for others, and for what the harness has for none ("N/A")."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else None


def _reason(log: str) -> str:
    """Return why the harness failed: what the server said, an exception, or its log's last line."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    for mark in (_TOO_LONG, "API request failed with error message", "Exception:"):
        for line in lines:
            if mark in line:
                return line[line.index(mark) :][:600]
    return (lines or ["it said nothing"])[-1][-600:]
