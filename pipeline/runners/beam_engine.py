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
import uuid
from typing import Any

from pipeline.config import EngineConfig
from tokenmill.beam_arguments import beam_arguments
from tokenmill.errors import TokenmillError
from tokenmill.stack import library_versions

_ANSWER_SECONDS = 10.0
_PROBE_SECONDS = 180.0
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


def check_beam_engine(engine: EngineConfig, directory: str) -> None:
    """Run a pipeline of one element on the engine, so that what is missing is said first.

    Args:
        engine: Where Beam's steps run.
        directory: The run's output directory, made if need be; workers read and write there.

    Raises:
        TokenmillError: The job service or the pool does not answer, no worker came, it has another
            release or Python, or it does not see the directory.
    """
    if engine.beam == "in_process":
        return
    _check_answers("engine.beam_job_endpoint", str(engine.beam_job_endpoint))
    pool = str(engine.beam_worker_pool)
    # Where each machine of the engine has its own pool, this one need not have any.
    if not pool.startswith(("localhost:", "127.")):
        _check_answers("engine.beam_worker_pool", pool)
    os.makedirs(directory, exist_ok=True)
    probe = tempfile.mkdtemp(prefix=".engine_probe.", dir=directory)
    try:
        _probe(engine, probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _probe(engine: EngineConfig, directory: str) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    word = uuid.uuid4().hex
    with open(os.path.join(directory, "asked"), "w", encoding="utf-8") as file:
        file.write(word)
    where = f"{engine.beam} at {engine.beam_job_endpoint}, workers of {engine.beam_worker_pool}"
    options = PipelineOptions([*engine_arguments(engine), "--job_name=tokenmill-probe"])
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([directory]) | beam.Map(tell_about_worker)
    try:
        result = pipeline.run()
        result.wait_until_finish(duration=int(_PROBE_SECONDS * 1000))
    except Exception as error:
        raise TokenmillError(
            f"a first trial on {where} failed: {_last_line(error)}", _HOW
        ) from error
    if result.state != "DONE":
        with contextlib.suppress(Exception):
            result.cancel()
        raise TokenmillError(
            f"a first trial on {where} was not done after {_PROBE_SECONDS:.0f} s (it is "
            f"{result.state}): no worker came, or other jobs have all of the engine.",
            _HOW,
        )
    _check_worker(directory, word, where)


def tell_about_worker(directory: str) -> str:
    """Write what a worker is, and what it reads in a directory of the client, beside it."""
    told: dict[str, Any] = {"host": socket.gethostname(), **_releases()}
    with contextlib.suppress(OSError), open(os.path.join(directory, "asked")) as file:
        told["asked"] = file.read()
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f"{uuid.uuid4().hex}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(told, file)
    os.rename(temporary, os.path.join(directory, "told"))
    return "told"


def _releases() -> dict[str, str]:
    """Return what has to be the same on both sides: code is sent by name, not by content."""
    found = library_versions()
    return {**found, "python": found["python"].rpartition(".")[0]}


def _check_worker(directory: str, word: str, where: str) -> None:
    """Check what the worker has written."""
    try:
        with open(os.path.join(directory, "told"), encoding="utf-8") as file:
            told = json.load(file)
    except OSError:
        told = {}
    if told.get("asked") != word:
        raise TokenmillError(
            f"the workers of {where} do not see {os.path.dirname(directory)}: they have to read "
            "and write run.output_dir under this very path.",
            "Give --output-dir on a file system that all machines have mounted.",
        )
    for name, here in _releases().items():
        if told.get(name) != here:
            raise TokenmillError(
                f"the workers of {where} have {name} {told.get(name)}, this process has {here}.",
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
