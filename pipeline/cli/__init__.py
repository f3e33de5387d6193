"""The command line. A command imports TFX, TensorFlow and pydantic itself, if it needs them."""

import datetime
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Literal, NoReturn

import click

from pipeline.cli.benchmark import benchmark
from pipeline.cli.compile import compile_command, manifests, submit
from pipeline.cli.curate import curate
from pipeline.cli.errors import fail
from pipeline.cli.gateway import gateway
from pipeline.cli.import_model import import_command
from pipeline.cli.ingest import ingest
from pipeline.cli.ladder import ladder
from pipeline.cli.lineage import gc, lineage
from pipeline.cli.options import run_config_options
from pipeline.cli.plan import plan
from pipeline.cli.register import register
from pipeline.cli.report import report
from pipeline.cli.schema import schema
from pipeline.cli.serve import add_serving_commands
from pipeline.cli.tokenizer import tokenizer
from pipeline.cli.value import value
from pipeline.cli.why import runs, why
from tokenmill.errors import TokenmillError
from tokenmill.preemption import EXIT_INTERRUPTED
from tokenmill.process_end import end_without_destructors


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tokenmill")
def cli() -> None:
    """From raw text to a served Transformer, with the tokens counted and the bill.

    \b
    tokenmill run                            the demo, on the embedded corpus
    tokenmill run --input my_texts/          your own text
    tokenmill generate "A layer that"        try the model that was pushed
    """  # noqa: D301  (click wants the backspace)


@cli.command()
@run_config_options
@click.option(
    "--input", "inputs", multiple=True, metavar="PATH...", help="Files, directories or globs."
)
@click.argument("more_inputs", nargs=-1, metavar="")
@click.option("--output-dir", help="Where artifacts, logs and models go (run.output_dir).")
@click.option("--estimate", is_flag=True, help="Count, estimate and report; end before training.")
@click.option("--no-cache", is_flag=True, help="Run every step anew.")
@click.option(
    "--report",
    "report_kind",
    type=click.Choice(["short", "full"]),
    default="short",
    show_default=True,
    help="What is shown: what fits 45 lines of 100 columns, or all tables.",
)
@click.option("--quiet", is_flag=True, help="Print the path of the model alone, or the error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option("--debug", is_flag=True, help="Show the stack trace of an error.")
def run(
    preset: str | None,
    config_path: str | None,
    overrides: Sequence[str],
    inputs: Sequence[str],
    more_inputs: Sequence[str],
    output_dir: str | None,
    estimate: bool,
    no_cache: bool,
    report_kind: str,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Run the pipeline: raw text to a pushed model, with the bill."""
    if more_inputs and not inputs:
        raise click.UsageError(f"unexpected argument {more_inputs[0]!r}; did you mean --input?")
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude each other; give one of them.")
    started = datetime.datetime.now(datetime.timezone.utc)
    try:
        with warnings.catch_warnings():  # Beam's, before there is a log for them
            warnings.simplefilter("ignore")
            from pipeline.loader import load_run_config, with_places
            from pipeline.runners.launch import Shown, launch
        paths = (*inputs, *more_inputs)
        config, chosen = load_run_config(preset, config_path, overrides, paths)
        config = with_places(config, output_dir, paths)
        code = launch(
            config,
            started,
            use_cache=not no_cache,
            debug=debug,
            estimate=estimate,
            chosen=chosen,
            shown=Shown(report_kind == "full", quiet, as_json),
        )
        sys.exit(code)
    except TokenmillError as error:
        if as_json:
            _print_result("failed", error, started)
        _fail(error, debug)
    except KeyboardInterrupt:  # before the first step: after it, the run itself tells
        if as_json:
            _print_result("interrupted", None, started)
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _print_result(
    outcome: Literal["failed", "interrupted"],
    error: TokenmillError | None,
    started: datetime.datetime,
) -> None:
    """Print the document of a run that ended before its first step."""
    from pipeline.report.run_result import ended_before_start

    seconds = (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()
    try:
        click.echo(ended_before_start(outcome, error, seconds).to_text())
    except OSError as failed:  # a full disk; the exit code and the error below tell of the run
        click.echo(f"standard output took no document: {failed.strerror}", err=True)


def _fail(error: TokenmillError, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    fail(error)


cli.add_command(benchmark)
cli.add_command(compile_command)
cli.add_command(curate)
cli.add_command(gc)
cli.add_command(import_command)
cli.add_command(ingest)
cli.add_command(ladder)
cli.add_command(lineage)
cli.add_command(manifests)
cli.add_command(plan)
cli.add_command(register)
cli.add_command(report)
cli.add_command(schema)
cli.add_command(submit)
cli.add_command(tokenizer)
cli.add_command(gateway)
cli.add_command(value)
cli.add_command(why)
cli.add_command(runs)
add_serving_commands(cli)


def main() -> None:
    """Run the console script."""
    _open_closed_streams()
    end_without_destructors(cli)


def _open_closed_streams() -> None:
    """Lead standard streams that a caller has closed (`>&-`) nowhere.

    A file of the run would get their numbers, and what libraries print.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
