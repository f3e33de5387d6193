"""engine.beam: what is told before the first step when an engine cannot do the work."""

import contextlib
import pathlib
import socket
import sys
import time

import apache_beam as beam
import beam_services
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from beam_services import wait_until

from pipeline.config import EngineConfig
from pipeline.loader import load_config
from pipeline.runners.beam_engine import check_beam_engine, engine_arguments, jobs_end_with_us
from tokenmill.errors import TokenmillError

WORKER = "pipeline.runners.beam_worker"


@pytest.fixture(scope="module")
def job_service(tmp_path_factory):
    with beam_services.job_service(tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture
def worker_pool(tmp_path):
    """Run a pool that starts its workers as docs/engines.md says."""
    start = tmp_path / "start_worker"
    start.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {WORKER} "$@"\n')
    start.chmod(0o755)
    with beam_services.worker_pool(tmp_path, f"--container_executable={start}") as address:
        yield address


def engine(job_endpoint, pool):
    return EngineConfig(beam="flink", beam_job_endpoint=job_endpoint, beam_worker_pool=pool)


@pytest.mark.timeout(300)
def test_an_engine_that_works_is_taken_and_nothing_is_left(job_service, worker_pool, tmp_path):
    directory = tmp_path / "runs" / "demo"
    check_beam_engine(engine(job_service, worker_pool), str(directory))
    assert list(directory.iterdir()) == []


def workers_of(pool):
    """Processes that a test's pool has started, by the directory that they run in."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if WORKER.encode() in (path / "cmdline").read_bytes():
                found += [path.name] * ((path / "cwd").readlink() == pool)
    return found


@pytest.mark.timeout(300)
def test_a_worker_ends_when_the_engine_hangs_up(job_service, worker_pool, tmp_path):
    check_beam_engine(engine(job_service, worker_pool), str(tmp_path / "runs"))
    wait_until(lambda: not workers_of(tmp_path))


def sleep_long(number):
    time.sleep(600)


@pytest.mark.timeout(300)
def test_an_interrupted_run_leaves_no_job(job_service, worker_pool):
    options = PipelineOptions(engine_arguments(engine(job_service, worker_pool)))
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([1]) | beam.Map(sleep_long)
    with contextlib.suppress(KeyboardInterrupt), jobs_end_with_us():
        result = pipeline.run()
        wait_until(lambda: result.state == "RUNNING")
        raise KeyboardInterrupt
    assert result.state == "CANCELLED"


@pytest.mark.timeout(300)
def test_workers_that_see_another_file_system_are_told(
    job_service, worker_pool, tmp_path, monkeypatch
):
    run = beam.Pipeline.run

    def run_elsewhere(self, *args, **kwargs):
        # What a worker of another machine finds: the path, without what was put there.
        (probe,) = (tmp_path / "runs").glob(".engine_probe.*")
        (probe / "asked").rename(probe / "hidden")
        return run(self, *args, **kwargs)

    monkeypatch.setattr(beam.Pipeline, "run", run_elsewhere)
    with pytest.raises(TokenmillError, match=r"do not see .*runs: .*run.output_dir") as error:
        check_beam_engine(engine(job_service, worker_pool), str(tmp_path / "runs"))
    assert "--output-dir" in error.value.hint
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_job_service_that_does_not_answer_is_named(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        TokenmillError, match=rf"engine.beam_job_endpoint = localhost:{port}: nothing answers"
    ) as error:
        check_beam_engine(engine(f"localhost:{port}", "localhost:1"), str(tmp_path))
    assert "docs/engines.md" in error.value.hint


def test_in_process_asks_nobody(tmp_path):
    check_beam_engine(EngineConfig(), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    assert "FnApiRunner" in engine_arguments(EngineConfig())[0]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["engine.beam=flink"], "needs engine.beam_job_endpoint"),
        (
            ["engine.beam=spark", "engine.beam_job_endpoint=localhost:1"],
            "needs engine.beam_worker_pool",
        ),
        (["engine.beam_job_endpoint=localhost"], "'localhost' is not of the form host:port"),
        (
            ["engine.beam=prism", "engine.beam_job_endpoint=a:1", "engine.beam_worker_pool=b:2",
             'engine.beam_args=["--runner=DirectRunner"]'],
            "give one of them",
        ),
        (["engine.beam=dataflow"], "allowed are in_process, flink, spark, prism"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_at_once(keys, told):
    with pytest.raises(TokenmillError, match=told):
        load_config("demo", None, keys)


def test_arguments_of_a_configuration_come_last():
    keys = [
        "engine.beam=flink", "engine.beam_job_endpoint=jobs:8099",
        "engine.beam_worker_pool=[::1]:50000", 'engine.beam_args=["--parallelism=8"]',
    ]  # fmt: skip
    arguments = engine_arguments(load_config("demo", None, keys).engine)
    assert arguments[-1] == "--parallelism=8"
    assert "--job_endpoint=jobs:8099" in arguments
    assert "--environment_config=[::1]:50000" in arguments
