"""A study from the command line: its directory, its log, its screen, and how failures look."""

import contextlib
import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.report.console import RunConsole
from pipeline.report.lines import shown_path
from pipeline.runners.failure import cause_of, explain_failure
from pipeline.runners.logs import LOG_NAME, send_output_to_log
from pipeline.runners.preflight import check_before_start
from tokenmill.errors import TokenmillError
from tokenmill.generated_code import remove_generated_bytecode
from tokenmill.library_logs import LOG_TIME_FORMAT, set_up_library_logging
from tokenmill.preemption import EXIT_FAILED, EXIT_INTERRUPTED, ended_by_signals, exit_code_of

STUDIES_NAME = "studies"
"""Directory of all studies in a run's output directory: their artifacts, proxy runs, results."""


@dataclass(frozen=True)
class Study:
    """A study that has begun.

    Attributes:
        config: The resolved configuration, with the studies' directory as its output directory: a
            study leaves no trace in the history of the runs.
        directory: Where the results and the log go.
        screen: Shows steps and notes; of `--json` it is silent.
    """

    config: Config
    directory: str
    screen: RunConsole

    @property
    def proxy_directory(self) -> str:
        """Directory of the proxy runs, which all studies of these runs share."""
        return os.path.join(self.config.output_dir, "proxy_runs")


def run_study(
    config: Config, kind: str, as_json: bool, work: Callable[[Study], str], debug: bool = False
) -> int:
    """Do a study's work, with all that libraries print in its log; return the exit code.

    Args:
        config: The resolved configuration.
        kind: Name of the study: `ladder`, `value`.
        as_json: Whether standard output gets the returned document, and nothing else.
        work: Does the study; returns its JSON document.
        debug: Whether to show the trace of an error.

    Raises:
        TokenmillError: Something is wrong before anything is written.
    """
    check_can_be_studied(config)
    check_before_start(config)
    root = os.path.abspath(os.path.join(config.output_dir, STUDIES_NAME))
    started = datetime.datetime.now(datetime.timezone.utc)
    directory = os.path.join(root, kind, started.strftime(LOG_TIME_FORMAT))
    try:
        os.makedirs(directory)
    except OSError as error:
        raise TokenmillError(
            f"cannot write to {config.output_dir}: {error.strerror}.",
            "Give another directory: --set run.output_dir=DIR",
        ) from None
    log = os.path.join(directory, LOG_NAME)
    terminal = send_output_to_log(log)
    screen = RunConsole(terminal.out, errors=terminal.err if as_json else None)
    set_up_library_logging()
    remove_generated_bytecode()
    run = config.run.model_copy(update={"output_dir": root})
    # What was measured before is of a run's ledger; a study asks anew.
    cost = config.cost.model_copy(update={"value": None})
    study = Study(config.model_copy(update={"run": run, "cost": cost}), directory, screen)
    try:
        with ended_by_signals():
            divide_cores_first()
            document = work(study)
    except KeyboardInterrupt:
        screen.stop()
        screen.paragraph("interrupted; what was trained is kept", to_errors=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        explain_failure(screen, cause_of(error), debug)
        screen.errors.print(f"Log: {shown_path(log)}", soft_wrap=True, markup=False)
        return exit_code_of(error)
    if as_json and not screen.print_document(document):
        return EXIT_FAILED
    return 0


def divide_cores_first() -> None:
    """Divide the cores as the Trainer does, before the first operation of TensorFlow."""
    from components.train.distributed.cpu_parallelism import divide_cores

    with contextlib.suppress(RuntimeError):  # initialized already: in a process of a test
        divide_cores()


def check_can_be_studied(config: Config) -> None:
    """Check that proxy runs can stand for the training.

    Raises:
        TokenmillError: The task has no bits per byte, or the training starts from a model.
    """
    if config.train.task != "causal-lm":
        raise TokenmillError(
            f'train.task = "{config.train.task}": proxy runs are compared in bits per byte, which '
            "only causal-lm has.",
            'Study the text with --set train.task="causal-lm".',
        )
    if config.corpus.holds_conversations:
        raise TokenmillError(
            f"corpus.{'messages' if config.corpus.messages_field else 'prompt'}_field is set: "
            "proxy runs train on texts, from random weights.",
            "Leave it out, and give the texts with corpus.text_field.",
        )
    if config.model.base_model is not None or config.train.resume_from is not None:
        key = "model.base_model" if config.model.base_model is not None else "train.resume_from"
        raise TokenmillError(
            f"{key} is set: proxy runs are smaller models, which start from random weights.",
            f"Leave {key} out.",
        )
