"""`tokenmill benchmark`: standard scores of a pushed model, by lm-evaluation-harness."""

from __future__ import annotations

import datetime
import json
import os
from typing import TYPE_CHECKING

import click

from pipeline.cli.errors import user_errors
from pipeline.cli.options import json_option, metadata_url_option, run_option
from serving.saved_model import limit_threads, newest_version
from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.files import make_empty_directory
from tokenmill.library_logs import LOG_TIME_FORMAT

if TYPE_CHECKING:
    from tokenmill.contracts.benchmark import BenchmarkReport

_ALL_SHIPPED = "bits_per_byte,cloze,continuation"


@click.command()
@click.argument("model_dir", default="runs/demo/serving_model")
@click.option(
    "--tasks",
    "tasks",
    multiple=True,
    default=[_ALL_SHIPPED],
    show_default=True,
    metavar="FILE|NAME,..",
    help="Task files of lm-evaluation-harness (YAML), and names of tasks.",
)
@click.option(
    "--output",
    metavar="DIR",
    help="Where results and samples go; new or empty.  [default: benchmarks/ of the run]",
)
@click.option(
    "--online",
    is_flag=True,
    help="Let the harness download the texts of its own tasks, such as hellaswag.",
)
@run_option
@metadata_url_option
@json_option
def benchmark(
    model_dir: str,
    tasks: tuple[str, ...],
    output: str | None,
    online: bool,
    run_directory: str | None,
    metadata_url: str | None,
    as_json: bool,
) -> None:
    """Score the pushed model MODEL_DIR by benchmark tasks.

    It is served on a free port of this machine; lm-evaluation-harness, installed into an
    environment of its own at the first call, asks that server.

    \b
    tokenmill benchmark runs/demo/serving_model --tasks cloze,continuation
    tokenmill benchmark runs/demo/serving_model --tasks my_task.yaml
    """  # noqa: D301  (click wants the backspace)
    names = [name for given in tasks for name in given.split(",") if name]
    if not names:
        raise click.UsageError("--tasks names no task")
    with user_errors():
        progress.set_listener(None, lambda message: click.echo(message, err=True))
        version = os.path.abspath(newest_version(model_dir))
        run_directory = run_directory or os.path.dirname(os.path.dirname(version))
        directory = os.path.abspath(output or _new_directory(run_directory, version))
        make_empty_directory(directory)
        from serving.benchmark.run import run_benchmarks

        limit_threads(version, None)
        report = run_benchmarks(version, names, directory, online)
        _record(version, run_directory, metadata_url, directory, report)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, sort_keys=True))
        return
    from pipeline.report.benchmark import benchmark_table
    from pipeline.report.tables import stdout_console

    stdout_console().print(benchmark_table(report.tasks))
    click.echo(f"{os.path.join(directory, 'benchmark.json')}, samples beside it")


def _new_directory(run_directory: str, version: str) -> str:
    now = datetime.datetime.now(datetime.timezone.utc).strftime(LOG_TIME_FORMAT)
    return os.path.join(run_directory, "benchmarks", f"{os.path.basename(version)}-{now}")


def _record(
    version: str,
    run_directory: str,
    metadata_url: str | None,
    directory: str,
    report: BenchmarkReport,
) -> None:
    """Record the benchmark in ML Metadata; say why if that cannot be: the numbers are there."""
    from pipeline.runners.run_lock import run_lock
    from tokenmill.contracts.model_origin import read_origin
    from tokenmill.metadata.benchmark_records import record_benchmark
    from tokenmill.metadata.output_directory import correct_paths, open_runs
    from tokenmill.metadata.store import open_store

    try:
        origin = read_origin(version)
        if origin is None:
            raise TokenmillError(
                f"{version} was pushed by no run.",
                "Its numbers are in benchmark.json all the same.",
            )
        if metadata_url:
            record_benchmark(open_store(metadata_url), origin, directory, report)
            return
        open_runs(run_directory)  # before a lock is left where there is no run
        with run_lock(run_directory):
            correct_paths(run_directory)
            record_benchmark(open_runs(run_directory).store, origin, directory, report)
    except TokenmillError as error:
        click.echo(f"not recorded in ML Metadata: {error}", err=True)
