"""One run from the command line: its directory, its steps, its report, and how failures look."""

import datetime
import io
import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape

from components.ledger.budget import OverBudgetError
from components.train.distributed.cluster import check_is_chief
from pipeline.config import Config
from pipeline.loader import dump_config
from pipeline.report.console import RunConsole
from pipeline.report.lines import shown_path
from pipeline.report.run_result import ResultBuilder
from pipeline.runners.failure import cause_of, explain_failure
from pipeline.runners.inputs import prepare_inputs
from pipeline.runners.logs import LOG_NAME, REPORT_NAME, send_output_to_log
from pipeline.runners.preflight import (
    check_before_start,
    experts_export_remark,
    source_field_remark,
)
from tokenmill.contracts.run_result import ErrorResult
from tokenmill.errors import TokenmillError
from tokenmill.files import check_is_no_pattern, write_json, write_text
from tokenmill.generated_code import remove_generated_bytecode
from tokenmill.library_logs import LOG_TIME_FORMAT, set_up_library_logging
from tokenmill.model.lora import trained_params_by_part
from tokenmill.number_format import active_params, count, duration
from tokenmill.preemption import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    StoppedError,
    ended_by_signals,
    exit_code_of,
)

if TYPE_CHECKING:
    from tokenmill.metadata.step_records import StepRecord

CONFIG_NAME = "config.toml"
REPORT_TEXT_NAME = "report.txt"


@dataclass(frozen=True)
class Shown:
    """What of a run is shown.

    Attributes:
        full: Whether all tables are shown, and lines as long as they get.
        quiet: Whether nothing is shown but the path of what came out, or the error.
        as_json: Whether one JSON document is printed at the end, and nothing else.
    """

    full: bool = False
    quiet: bool = False
    as_json: bool = False


def launch(
    config: Config,
    started: datetime.datetime,
    use_cache: bool,
    debug: bool,
    estimate: bool = False,
    chosen: str = "",
    shown: Shown = Shown(),
) -> int:
    """Run the pipeline and show its progress; return the exit code.

    Args:
        config: The resolved configuration.
        started: When the command was given.
        use_cache: Whether to take unchanged steps from the cache.
        debug: Whether to show the trace of an error.
        estimate: End with the ledger: count, estimate and report, and train nothing.
        chosen: What was chosen for the user, in a sentence; empty if nothing was.
        shown: What is shown.

    Raises:
        TokenmillError: Something is wrong before the first step starts.
    """
    _check_runnable(config)
    if config.run.metadata_url is not None:  # before anything is written
        from tokenmill.metadata.store import open_store

        open_store(config.run.metadata_url)
    run_directory = _make_run_directory(config, started)
    with open(os.path.join(run_directory, CONFIG_NAME), "w", encoding="utf-8") as out:
        out.write(dump_config(config))
    terminal = send_output_to_log(os.path.join(run_directory, LOG_NAME))
    errors = terminal.err if shown.quiet or shown.as_json else None
    screen = RunConsole(terminal.out, shown.full and errors is None, errors)
    set_up_library_logging()
    remove_generated_bytecode()
    result = ResultBuilder()
    for name, file in (("directory", ""), ("log", LOG_NAME), ("config", CONFIG_NAME)):
        result.left(name, os.path.join(run_directory, file))
    _print_config(screen, config, run_directory, chosen)
    for remark in (experts_export_remark(config), source_field_remark(config)):
        if remark:
            screen.note(remark)
    try:
        with ended_by_signals():
            code = _run(config, run_directory, screen, started, use_cache, estimate, result)
    except KeyboardInterrupt:
        screen.stop()
        screen.paragraph("interrupted", to_errors=True)
        code, result.outcome = EXIT_INTERRUPTED, "interrupted"
    except Exception as error:
        # TFX and Beam raise anything; the log has it whole, the user gets the sentence.
        _explain(screen, cause_of(error), result, debug)
        code = exit_code_of(error)
        if result.outcome == "failed" and code != EXIT_FAILED:
            result.outcome = "interrupted" if code == EXIT_INTERRUPTED else "stopped"
    document = ""
    if shown.as_json:
        document = result.result(screen, code, _seconds_since(started)).to_text()
    elif shown.quiet and code == 0:
        document = result.paths.model or result.paths.page or run_directory
    printed = not document or screen.print_document(document)
    return code if printed else code or EXIT_FAILED


def _seconds_since(started: datetime.datetime) -> float:
    return (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()


def _run(
    config: Config,
    run_directory: str,
    screen: RunConsole,
    started: datetime.datetime,
    use_cache: bool,
    estimate: bool,
    result: ResultBuilder,
) -> int:
    manifest_directory = prepare_inputs(config, screen)
    screen.step_started("loading TFX")
    from pipeline.report.run import RunReport, print_report, print_summary, read_report
    from pipeline.runners.local import RunOutcome, StepFailedError, run_local

    screen.stop()
    outcome = RunOutcome()

    def leave(report: RunReport) -> None:
        result.read_numbers(report)
        path = os.path.join(run_directory, REPORT_NAME)
        write_json(path, report.to_json())
        result.left("report_json", path)
        with screen.showing(REPORT_TEXT_NAME):
            text = io.StringIO()
            whole = RunConsole(text, full=True)
            screen.repeat_on(whole)
            print_report(whole.console, report, outcome.steps)
            path = os.path.join(run_directory, REPORT_TEXT_NAME)
            lines = [line.rstrip() for line in text.getvalue().split("\n")]  # tables are padded
            write_text(path, "\n".join(lines))
            result.left("report_text", path)

    def show(report: RunReport) -> None:
        leave(report)
        with screen.showing("the report"):
            if screen.full:
                print_report(screen.console, report, outcome.steps)
            else:
                print_summary(screen, report)

    def leave_page() -> None:
        with screen.showing("report.html"):
            from pipeline.report.page.write import write_page

            result.left("page", write_page(config.output_dir, outcome.run_id))

    try:
        until = "TokenLedger" if estimate else None
        run_local(config, manifest_directory, screen, outcome, use_cache, until)
    except StoppedError:
        result.run_id = outcome.run_id or None
        raise
    except StepFailedError as error:
        result.run_id = outcome.run_id or None
        over = error.__cause__ if isinstance(error.__cause__, OverBudgetError) else None
        if over is not None:
            result.outcome = "over_budget"
            show(read_report(outcome.steps, over.ledger))
        elif "TokenLedger" in outcome.steps:
            leave(read_report(outcome.steps))
        if exit_code_of(error) == EXIT_FAILED:  # who asked to stop waits for the process to end
            leave_page()
        if over is None or not estimate:
            raise
        result.error = ErrorResult(message=over.message, hint=over.hint)
        screen.paragraph(over.message, "\nA run would stop here: ")
        screen.paragraph(over.hint)
        _print_paths(screen, result, _seconds_since(started))
        return 0
    result.run_id = outcome.run_id
    numbers = read_report(outcome.steps)
    show(numbers)
    leave_page()
    if numbers.cost_report is None:
        result.outcome = "estimated"
        screen.say("")
        screen.paragraph(
            "Nothing was trained. The same command without --estimate goes on from here."
        )
        _print_paths(screen, result, _seconds_since(started))
        return 0
    properties = outcome.steps["Pusher"].one("pushed_model").custom_properties
    if not properties["pushed"].int_value:
        result.outcome = "not_blessed"
        _print_failures(screen, result.failures)
        _print_paths(screen, result, _seconds_since(started))
        return 1
    result.outcome = "pushed"
    result.left("model", properties["pushed_destination"].string_value)
    _print_paths(screen, result, _seconds_since(started))
    screen.say(f"Try it: [bold]{escape(_command_to_try(config, outcome.steps, result))}[/]")
    return 0


def _print_failures(screen: RunConsole, failures: list[str]) -> None:
    """Say why the model was not pushed: every threshold that it missed."""
    screen.paragraph(
        "the Evaluator did not bless the model.", "\n[red]Not pushed[/]: ", to_errors=True
    )
    for failure in failures:
        screen.paragraph(f"  {failure}", to_errors=True)


def _print_paths(screen: RunConsole, result: ResultBuilder, seconds: float) -> None:
    """Print where things are, each path whole on a line of its own: they are to be copied."""
    paths = result.paths
    assert paths.directory is not None
    screen.say("")
    if paths.page is not None:
        screen.say(f"Report: {shown_path(paths.page)}", markup=False)
    what = "estimate" if result.outcome in ("estimated", "over_budget") else "whole run"
    where = shown_path(paths.directory)
    screen.say(f"The {what} took {duration(seconds)}; log, all tables: {where}", markup=False)
    if paths.model is not None:
        screen.say(f"Pushed: {shown_path(paths.model)}", markup=False)


def _command_to_try(config: Config, steps: dict[str, "StepRecord"], result: ResultBuilder) -> str:
    """Return a command that uses the model that was pushed."""
    assert result.paths.model is not None
    base = os.path.dirname(result.paths.model)
    model = shlex.quote(shown_path(base))
    if config.train.task == "classification":
        return f'tokenmill classify "Some text" --model {model}'
    if config.train.task != "causal-lm":
        return f"tokenmill serve {model}"
    by_default = os.path.abspath("runs/demo/serving_model") == base
    option = "" if by_default else f" --model {model}"
    return f"tokenmill generate {_prompt(config, steps)}{option}"


def _prompt(config: Config, steps: dict[str, "StepRecord"]) -> str:
    """Quote the first words of a held-out document, for a shell; the demo has its own."""
    words = "This function returns"
    if config.corpus.input:
        from tokenmill.files import list_files
        from tokenmill.records.documents import read_documents
        from tokenmill.records.splits import split_directory

        examples = split_directory(steps["Curator"].one("curated_examples").uri, "eval")
        # A split of few documents has shards without one.
        batches = (batch for file in list_files(examples) for batch in read_documents(file))
        text = next(batch.column("text")[0].as_py() for batch in batches if len(batch)).decode()
        words = " ".join("".join(c if c.isprintable() else " " for c in text[:200]).split()[:4])
        words = words[:40].strip()
    plain = words and not set(words) & set('"$`!' + chr(92))
    return f'"{words}"' if plain else shlex.quote(words)


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
    check_before_start(config)


def _make_run_directory(config: Config, started: datetime.datetime) -> str:
    name = started.strftime(LOG_TIME_FORMAT)
    directory = os.path.abspath(os.path.join(config.output_dir, "logs", name))
    try:
        os.makedirs(directory)
    except OSError as error:
        raise TokenmillError(
            f"cannot write to {config.output_dir}: {error.strerror}.", "Give another --output-dir."
        ) from None
    return directory


def _print_config(screen: RunConsole, config: Config, run_directory: str, chosen: str) -> None:
    shape, train = config.shape(), config.train
    params, lora = shape.params_total, train.lora
    screen.paragraph(
        f"{config.run.name}: {train.task}, {count(params)} parameters"
        f"{active_params(params, shape.params_active)}, "
        f"{shape.layers} layers, d_model {shape.d_model}, {shape.heads} heads",
        "[bold]tokenmill[/] ",
    )
    screen.paragraph(
        f"  vocabulary {count(shape.vocab_size)}, length {count(shape.sequence_length)}, "
        f"{train.epochs:g} epochs, batch {train.global_batch_size}, {train.precision}, "
        f"strategy {train.strategy}, seed {config.run.seed}"
    )
    if lora is not None:
        trained = sum(trained_params_by_part(shape, lora).values())
        targets = ", ".join(lora.adapted(shape))
        screen.paragraph(
            f"  LoRA of rank {lora.rank} on {targets}: {count(trained)} parameters are trained, "
            f"{trained / params:.2%} of all"
        )
    if chosen:
        screen.paragraph(f"  {chosen}")
    if train.task != "causal-lm":
        screen.paragraph(
            f"  evaluate.max_bits_per_byte does not apply: {train.task} has no bits per byte"
        )
    path = shown_path(os.path.join(run_directory, CONFIG_NAME))
    screen.say(f"  everything: {path}", markup=False)


def _explain(screen: RunConsole, error: BaseException, result: ResultBuilder, debug: bool) -> None:
    result.error = explain_failure(screen, error, debug)
    for name, path in (("Report", result.paths.page), ("Log", result.paths.log)):
        if path is not None:
            screen.errors.print(f"{name}: {shown_path(path)}", soft_wrap=True, markup=False)
