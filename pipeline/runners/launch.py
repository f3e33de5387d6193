"""One run from the command line: its directory, its steps, its report, and how failures look."""

import datetime
import errno
import json
import os
import sys
import traceback
from collections import Counter

from rich.markup import escape

from components.train.distributed.cluster import check_is_chief
from pipeline.config import Config
from pipeline.embedded_corpus import build_embedded_corpus
from pipeline.loader import dump_config
from pipeline.report.console import RunConsole, count, duration, megabytes
from pipeline.runners.logs import LOG_NAME, send_output_to_log
from tokenmill.errors import TokenmillError
from tokenmill.files import check_is_no_pattern
from tokenmill.library_logs import set_up_library_logging
from tokenmill.preemption import EXIT_INTERRUPTED, ended_by_signals, exit_code_of

CONFIG_NAME = "config.toml"
REPORT_NAME = "report.json"
REPORT_TEXT_NAME = "report.txt"


def launch(config: Config, started: datetime.datetime, use_cache: bool, debug: bool) -> int:
    """Run the pipeline and show its progress; return the exit code.

    Raises:
        TokenmillError: Something is wrong before the first step starts.
    """
    _check_runnable(config)
    run_directory = _make_run_directory(config, started)
    with open(os.path.join(run_directory, CONFIG_NAME), "w", encoding="utf-8") as out:
        out.write(dump_config(config))
    log_path = os.path.join(run_directory, LOG_NAME)
    screen = RunConsole(send_output_to_log(log_path))
    set_up_library_logging()
    try:
        with ended_by_signals():
            return _run(config, run_directory, screen, started, use_cache)
    except KeyboardInterrupt:
        screen.stop()
        screen.say("interrupted")
        return EXIT_INTERRUPTED
    except TokenmillError as error:
        _explain(screen, error, log_path, debug)
        return exit_code_of(error)
    except Exception as error:
        # TFX and Beam raise anything; the log has it whole, the user gets the sentence.
        _explain(screen, error.__cause__ or error, log_path, debug)
        return exit_code_of(error)


def _run(
    config: Config,
    run_directory: str,
    screen: RunConsole,
    started: datetime.datetime,
    use_cache: bool,
) -> int:
    _print_config(screen, config, run_directory)
    manifest_directory = _prepare_inputs(config, screen)
    screen.step_started("loading TFX")
    from pipeline.report.run import print_report
    from pipeline.runners.local import run_local

    screen.stop()
    outcome = run_local(config, manifest_directory, screen, use_cache)
    numbers = print_report(screen.console, outcome.steps)
    with open(os.path.join(run_directory, REPORT_TEXT_NAME), "w", encoding="utf-8") as out:
        print_report(RunConsole(out).console, outcome.steps)
    with open(os.path.join(run_directory, REPORT_NAME), "w", encoding="utf-8") as out:
        json.dump(numbers.to_json(), out, indent=2, sort_keys=True)
    seconds = (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()
    screen.say(f"\nThe whole run took {duration(seconds)}; log and report: {run_directory}")
    failures = numbers.cost_report.quality.evaluation.failures
    return _print_push(screen, config, outcome.steps["Pusher"], failures)


def _print_push(screen: RunConsole, config: Config, record, failures: list[str]) -> int:
    properties = record.one("pushed_model").custom_properties
    if not properties["pushed"].int_value:
        screen.say("[red]Not pushed[/]: the Evaluator did not bless the model.")
        for failure in failures:
            screen.say(f"  {escape(failure)}")
        return 1
    destination = properties["pushed_destination"].string_value
    screen.say(f"Pushed: {destination}")
    if config.train.task == "classification":
        base = os.path.dirname(destination)
        screen.say(f'Try it: [bold]tokenmill classify "Some text" --model {base}[/]')
        return 0
    if config.train.task != "causal-lm":
        screen.say(f"Serve it: [bold]tokenmill serve {os.path.dirname(destination)}[/]")
        return 0
    by_default = os.path.abspath("runs/demo/serving_model") == os.path.dirname(destination)
    option = "" if by_default else f" --model {os.path.dirname(destination)}"
    screen.say(f'Try it: [bold]tokenmill generate "This function returns"{option}[/]')
    return 0


def _check_runnable(config: Config) -> None:
    check_is_no_pattern(config.output_dir, "run.output_dir")
    if config.train.strategy == "multi_worker":
        check_is_chief(config.training_directory)
    if config.train.task == "classification" and not config.corpus.label_field:
        raise TokenmillError(
            'train.task = "classification" needs corpus.label_field, the field of the input that '
            "holds a document's class.",
            "For example: --set corpus.label_field=label",
        )
    try:  # before anything is read or imported
        from data.catalog.chips import find_chip

        find_chip(config.cost.chip)
    except ValueError as error:
        raise TokenmillError(f"cost.chip: {error}") from None


def _make_run_directory(config: Config, started: datetime.datetime) -> str:
    name = started.strftime("%Y%m%dT%H%M%S.%fZ")
    directory = os.path.abspath(os.path.join(config.output_dir, "logs", name))
    try:
        os.makedirs(directory)
    except OSError as error:
        raise TokenmillError(
            f"cannot write to {config.output_dir}: {error.strerror}.", "Give another --output-dir."
        ) from None
    return directory


def _print_config(screen: RunConsole, config: Config, run_directory: str) -> None:
    shape, train = config.shape(), config.train
    params = shape.params_total
    screen.say(
        f"[bold]tokenmill[/] {config.run.name}: {shape.layers} layers, d_model {shape.d_model}, "
        f"{shape.heads} heads, vocabulary {count(shape.vocab_size)}, sequence length "
        f"{count(shape.sequence_length)}: {count(params)} parameters"
    )
    screen.say(
        f"  {train.task}, {train.epochs:g} epochs, global batch {train.global_batch_size} rows, "
        f"{train.precision}, strategy {train.strategy}, seed {config.run.seed}"
    )
    if train.task != "causal-lm":
        screen.say(
            f"  evaluate.max_bits_per_byte does not apply: {train.task} has no bits per byte"
        )
    screen.say(f"  everything: {os.path.join(run_directory, CONFIG_NAME)}")


def _prepare_inputs(config: Config, screen: RunConsole) -> str:
    """Write the manifest, return its directory; the embedded corpus is built if it is the input."""
    inputs = config.corpus.input
    if not inputs:
        screen.step_started("embedded corpus")
        corpus = build_embedded_corpus(
            on_progress=lambda done, total: screen.step_progress(done, total, "")
        )
        screen.step_finished(
            "embedded corpus",
            f"{count(corpus.documents)} documents, {megabytes(corpus.text_bytes)} of docstrings "
            f"from {len(corpus.packages)} installed packages",
            cached=False,
        )
        inputs = (str(corpus.path),)
    from components.ingest.manifest import describe_left_out, list_inputs, write_manifest

    left_out: Counter[str] = Counter()
    files = list_inputs(inputs, span=config.corpus.span, left_out=left_out)
    if sentence := describe_left_out(left_out):
        screen.note(sentence)
    return write_manifest(
        files,
        os.path.abspath(os.path.join(config.output_dir, "inputs")),
    )


def _explain(screen: RunConsole, error: BaseException, log_path: str, debug: bool) -> None:
    screen.stop()
    trace = "".join(traceback.format_exception(error))
    print(trace, file=sys.stderr)  # the log
    if debug:
        screen.console.print(trace, markup=False)
    if isinstance(error, TokenmillError):
        screen.console.print(f"[red]error:[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            screen.console.print(escape(error.hint.strip("\n")), soft_wrap=True)
    elif os.strerror(errno.ENOSPC) in str(error):
        # Libraries wrap the system's error in their own types; its words are what they keep.
        screen.console.print("[red]error:[/] the disk is full.", soft_wrap=True)
        screen.console.print("Free some space or give another --output-dir, then run again.")
    else:
        first_line = (str(error).strip().splitlines() or [""])[0]
        text = f"{type(error).__name__}: {first_line}"
        screen.console.print(f"[red]error:[/] {escape(text)}", soft_wrap=True)
        screen.console.print("Run again with --debug for the stack trace.")
    screen.console.print(f"Log: {log_path}", soft_wrap=True)
