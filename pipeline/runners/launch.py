"""One run from the command line: its directory, its steps, its report, and how failures look."""

import datetime
import errno
import io
import os
import shlex
import sys
import traceback
from collections import Counter
from typing import TYPE_CHECKING

from rich.markup import escape

from components.ledger.budget import OverBudgetError
from components.train.distributed.cluster import check_is_chief
from pipeline.config import Config
from pipeline.embedded_corpus import build_embedded_corpus
from pipeline.loader import dump_config
from pipeline.report.console import RunConsole
from pipeline.runners.logs import LOG_NAME, REPORT_NAME, send_output_to_log
from pipeline.runners.preflight import check_before_start
from tokenmill.errors import TokenmillError
from tokenmill.files import check_is_no_pattern, write_json, write_text
from tokenmill.generated_code import remove_generated_bytecode
from tokenmill.library_logs import LOG_TIME_FORMAT, set_up_library_logging
from tokenmill.model.lora import trained_params_by_part
from tokenmill.number_format import byte_size, count, duration
from tokenmill.preemption import EXIT_FAILED, EXIT_INTERRUPTED, ended_by_signals, exit_code_of
from tokenmill.visible import visible_lines

if TYPE_CHECKING:
    from tokenmill.metadata.step_records import StepRecord

CONFIG_NAME = "config.toml"
REPORT_TEXT_NAME = "report.txt"


def launch(
    config: Config,
    started: datetime.datetime,
    use_cache: bool,
    debug: bool,
    estimate: bool = False,
    chosen: str = "",
) -> int:
    """Run the pipeline and show its progress; return the exit code.

    Args:
        config: The resolved configuration.
        started: When the command was given.
        use_cache: Whether to take unchanged steps from the cache.
        debug: Whether to show the trace of an error.
        estimate: End with the ledger: count, estimate and report, and train nothing.
        chosen: What was chosen for the user, in a sentence; empty if nothing was.

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
    log_path = os.path.join(run_directory, LOG_NAME)
    screen = RunConsole(send_output_to_log(log_path))
    set_up_library_logging()
    remove_generated_bytecode()
    _print_config(screen, config, run_directory, chosen)
    try:
        with ended_by_signals():
            return _run(config, run_directory, screen, started, use_cache, estimate)
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
    estimate: bool,
) -> int:
    manifest_directory = _prepare_inputs(config, screen)
    screen.step_started("loading TFX")
    from pipeline.report.run import RunReport, print_report, read_report
    from pipeline.runners.local import RunOutcome, StepFailedError, run_local

    screen.stop()
    outcome = RunOutcome()

    def leave(report: RunReport) -> None:
        write_json(os.path.join(run_directory, REPORT_NAME), report.to_json())
        with screen.showing(REPORT_TEXT_NAME):
            text = io.StringIO()
            print_report(RunConsole(text).console, report, outcome.steps)
            write_text(os.path.join(run_directory, REPORT_TEXT_NAME), text.getvalue())

    def show(report: RunReport) -> None:
        leave(report)
        with screen.showing("the report"):
            print_report(screen.console, report, outcome.steps)

    def leave_page() -> None:
        with screen.showing("report.html"):
            from pipeline.report.page.write import write_page

            path = write_page(config.output_dir, outcome.run_id)
            screen.say(f"\nReport: {escape(path)}")

    try:
        run_local(config, manifest_directory, screen, outcome, use_cache, estimate)
    except StepFailedError as error:
        over = error.__cause__ if isinstance(error.__cause__, OverBudgetError) else None
        if over is not None:
            show(read_report(outcome.steps, over.ledger))
        elif "TokenLedger" in outcome.steps:
            leave(read_report(outcome.steps))
        if exit_code_of(error) == EXIT_FAILED:  # who asked to stop waits for the process to end
            leave_page()
        if over is None or not estimate:
            raise
        screen.say(f"\nA run would stop here: {escape(over.message)}\n{escape(over.hint)}")
        return 0
    numbers = read_report(outcome.steps)
    show(numbers)
    leave_page()
    seconds = (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()
    if numbers.cost_report is None:
        screen.say(f"\nThe estimate took {duration(seconds)}; report: {run_directory}")
        screen.say("Nothing was trained. The same command without --estimate goes on from here.")
        return 0
    screen.say(f"\nThe whole run took {duration(seconds)}; log and report: {run_directory}")
    failures = numbers.cost_report.quality.evaluation.failures
    return _print_push(screen, config, outcome.steps, failures)


def _print_push(
    screen: RunConsole, config: Config, steps: dict[str, "StepRecord"], failures: list[str]
) -> int:
    properties = steps["Pusher"].one("pushed_model").custom_properties
    if not properties["pushed"].int_value:
        screen.say("[red]Not pushed[/]: the Evaluator did not bless the model.")
        for failure in failures:
            screen.say(f"  {escape(failure)}")
        return 1
    destination = properties["pushed_destination"].string_value
    screen.say(f"Pushed: {escape(destination)}")
    base = os.path.dirname(destination)
    model = shlex.quote(base)
    if config.train.task == "classification":
        command = f'tokenmill classify "Some text" --model {model}'
    elif config.train.task != "causal-lm":
        command = f"tokenmill serve {model}"
    else:
        by_default = os.path.abspath("runs/demo/serving_model") == base
        option = "" if by_default else f" --model {model}"
        command = f"tokenmill generate {_prompt(config, steps)}{option}"
    screen.console.print(f"Try it: [bold]{escape(command)}[/]", soft_wrap=True)
    return 0


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
    screen.say(
        f"[bold]tokenmill[/] {config.run.name}: {shape.layers} layers, d_model {shape.d_model}, "
        f"{shape.heads} heads, vocabulary {count(shape.vocab_size)}, sequence length "
        f"{count(shape.sequence_length)}: {count(params)} parameters"
    )
    screen.say(
        f"  {train.task}, {train.epochs:g} epochs, global batch {train.global_batch_size} rows, "
        f"{train.precision}, strategy {train.strategy}, seed {config.run.seed}"
    )
    if lora is not None:
        trained = sum(trained_params_by_part(shape, lora).values())
        targets = ", ".join(lora.adapted(shape))
        screen.say(
            f"  LoRA of rank {lora.rank} on {targets}: {count(trained)} parameters are trained, "
            f"{trained / params:.2%} of all"
        )
    if chosen:
        screen.say(f"  {escape(chosen)}")
    if train.task != "causal-lm":
        screen.say(
            f"  evaluate.max_bits_per_byte does not apply: {train.task} has no bits per byte"
        )
    screen.say(f"  everything: {os.path.join(run_directory, CONFIG_NAME)}")


def _prepare_inputs(config: Config, screen: RunConsole) -> str:
    """Write the manifest, return its directory; the embedded corpus is built if it is the input."""
    inputs = config.corpus.input
    if not inputs:
        if config.corpus.holds_conversations:
            raise TokenmillError(
                f"there is no input, and the embedded corpus has no conversations "
                f"(a field {config.corpus.content_fields[0]!r}).",
                "Give a file of conversations with --input.",
            )
        screen.step_started("embedded corpus")
        corpus = build_embedded_corpus(
            on_progress=lambda done, total: screen.step_progress(done, total, "")
        )
        screen.step_finished(
            "embedded corpus",
            f"{count(corpus.documents)} documents, {byte_size(corpus.text_bytes)} of docstrings "
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
    print(visible_lines(trace), file=sys.stderr)  # the log
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
