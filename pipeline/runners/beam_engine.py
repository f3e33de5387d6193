"""Beam's steps on Flink, Spark or Prism: their arguments, and a probe before the first step.

The engine's job service (Beam's own, beside a cluster) takes the pipelines; Python's part of the
work is done by the workers of a pool, which have this project installed and see the run's files.
"""

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineState

from pipeline.config import EngineConfig
from tokenmill.beam_arguments import beam_arguments
from tokenmill.errors import TokenmillError
from tokenmill.stack import library_versions

_ANSWER_SECONDS = 10.0
_PROBE_SECONDS = 180.0
# How many elements look at their workers; several machines share them.
_PROBED = 16
_KEPT_MILLISECONDS = 10_000
_HOW = "docs/engines.md (Flink, Spark, Prism) says what an engine needs."


def engine_arguments(engine: EngineConfig) -> list[str]:
    """Return Beam's arguments of a configuration: of its engine, then those that were given."""
    if engine.beam == "in_process":
        return beam_arguments(engine.beam_args)
    return [
        "--runner=PortableRunner",
        f"--job_endpoint={engine.beam_job_endpoint}",
        "--environment_type=EXTERNAL",
        f"--environment_config={engine.beam_worker_pool}",
        "--sdk_container_image=none",  # else TFX packs itself up for the workers, in each step
        # Spark would start new workers for each stage; each imports TensorFlow first.
        f"--environment_cache_millis={_KEPT_MILLISECONDS}",
        "--experiments=disable_logging_submission_environment",  # which asks pip, in each step
        *engine.beam_args,
    ]


@contextlib.contextmanager
def jobs_end_with_us() -> Iterator[None]:
    """Cancel the engine's jobs that still run when the body ends by an error or a signal.

    Beam leaves them: they would go on to write into the output directory, beside the next run.
    """
    started: list[Any] = []
    run = PortableRunner.run_portable_pipeline

    def run_and_keep(self: PortableRunner, *arguments: Any, **named: Any) -> Any:
        result = run(self, *arguments, **named)
        started.append(result)
        return result

    def cancel() -> None:
        for result in started:
            with contextlib.suppress(Exception):  # the job service has gone, too
                if not PipelineState.is_terminal(result.state):
                    result.cancel()

    PortableRunner.run_portable_pipeline = run_and_keep
    try:
        yield
    except BaseException:
        # A call to a service whose machine is gone has no limit of its own.
        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        thread.join(_ANSWER_SECONDS)
        raise
    finally:
        PortableRunner.run_portable_pipeline = run


def check_beam_engine(engine: EngineConfig, directory: str) -> None:
    """Run a pipeline of some elements on the engine, so that what is missing is said first.

    Args:
        engine: Where Beam's steps run.
        directory: The run's output directory, made if need be; workers read and write there.

    Raises:
        TokenmillError: The job service does not answer, no worker came, one has other releases or
            another Python, or does not see the directory.
    """
    if engine.beam == "in_process":
        return
    _check_answers("engine.beam_job_endpoint", str(engine.beam_job_endpoint))
    os.makedirs(directory, exist_ok=True)
    probe = tempfile.mkdtemp(prefix=".engine_probe.", dir=directory)
    try:
        with jobs_end_with_us():
            _probe(engine, probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _probe(engine: EngineConfig, directory: str) -> None:
    word = uuid.uuid4().hex
    with open(os.path.join(directory, "asked"), "w", encoding="utf-8") as file:
        file.write(word)
    where = f"{engine.beam} at {engine.beam_job_endpoint}, workers of {engine.beam_worker_pool}"
    options = PipelineOptions([*engine_arguments(engine), "--job_name=tokenmill-probe"])
    pipeline = beam.Pipeline(options=options)
    elements = pipeline | beam.Create([(directory, number) for number in range(_PROBED)])
    _ = elements | beam.Reshuffle() | beam.MapTuple(tell_about_worker)
    try:
        result = pipeline.run()
        result.wait_until_finish(duration=int(_PROBE_SECONDS * 1000))
    except Exception as error:
        raise TokenmillError(
            f"a first trial on {where} failed: {_last_line(error)}", _HOW
        ) from error
    if result.state != PipelineState.DONE:
        raise TokenmillError(
            f"a first trial on {where} was not done after {_PROBE_SECONDS:.0f} s (it is "
            f"{result.state}): no worker came, or other jobs have all of the engine.",
            _HOW,
        )
    for number in range(_PROBED):
        _check_worker(os.path.join(directory, str(number)), word, where)


def tell_about_worker(directory: str, number: int) -> None:
    """Write what a worker is, and what it reads in a directory of the client, beside it."""
    if not os.path.isdir(directory):
        return
    told: dict[str, Any] = {"host": socket.gethostname(), **_releases()}
    with contextlib.suppress(OSError), open(os.path.join(directory, "asked")) as file:
        told["asked"] = file.read()
    temporary = os.path.join(directory, f"{uuid.uuid4().hex}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(told, file)
    os.rename(temporary, os.path.join(directory, str(number)))


def _releases() -> dict[str, str]:
    """Return what has to be the same on both sides: code is sent by name, not by content."""
    found = library_versions()
    return {**found, "python": found["python"].rpartition(".")[0]}


def _check_worker(path: str, word: str, where: str) -> None:
    """Check what a worker has written."""
    told: dict[str, str] = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        told = json.load(file)
    if told.get("asked") != word:
        output = os.path.dirname(os.path.dirname(path))
        raise TokenmillError(
            f"workers of {where} do not see {output}: they have to read and write "
            "run.output_dir under this very path.",
            "Give --output-dir on a file system that all machines have mounted.",
        )
    for name, here in _releases().items():
        if told.get(name) != here:
            raise TokenmillError(
                f"workers of {where} on {told['host']} have {name} {told.get(name)}, this process "
                f"has {here}.",
                "Install the same wheel with the same lock for both.",
            )


def _check_answers(key: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise TokenmillError(f"{key} = {address}: nothing answers ({reason}).", _HOW) from None


def _last_line(error: BaseException) -> str:
    details = getattr(error, "details", None)  # of gRPC, whose text is several lines
    text = str(details()) if callable(details) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
