"""Runs on this machine, with TFX's LocalDagRunner.

Imports TFX; pipeline/runners/launch.py imports this module only when a run starts.
"""

import contextlib
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import local_dag_runner
from tfx.orchestration.portable import cache_utils, launcher

from components.ledger.budget import OverBudgetError
from components.train.distributed.rendezvous import show_life
from components.train.execution import Execution
from pipeline.config import Config
from pipeline.dag import create_components
from pipeline.loader import dump_config
from pipeline.report.console import RunConsole
from pipeline.report.step_summary import step_remarks, summarize_step
from pipeline.runners.beam_engine import engine_arguments, jobs_end_with_us
from pipeline.runners.cache_key import portable_cache_context
from pipeline.runners.run_lock import run_lock
from tokenmill import progress
from tokenmill.contracts.training_limits import write_limits
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import SQLITE_NAME, claim_directory
from tokenmill.metadata.step_records import StepRecord, record_run, step_record
from tokenmill.metadata.store import answering, connection_config, open_store
from tokenmill.metadata.unfinished import mark_unfinished


@dataclass
class RunOutcome:
    """A run, finished or as far as it came.

    Attributes:
        run_id: TFX's id of the run in ML Metadata.
        steps: Record of each step, by node id, in the order of the run.
    """

    run_id: str = ""
    steps: dict[str, StepRecord] = field(default_factory=dict)


class StepFailedError(Exception):
    """A step failed; the cause is `__cause__`."""

    def __init__(self, node_id: str):
        super().__init__(node_id)
        self.node_id = node_id


def metadata_location(config: Config) -> str:
    """Return where ML Metadata is: the server, or a SQLite file in the output directory."""
    if config.run.metadata_url is not None:
        return config.run.metadata_url
    return os.path.abspath(os.path.join(config.output_dir, SQLITE_NAME))


def run_local(
    config: Config,
    manifest_directory: str,
    screen: RunConsole,
    outcome: RunOutcome,
    use_cache: bool = True,
    until: str | None = None,
) -> None:
    """Run the steps; unchanged ones are taken from the cache.

    Args:
        config: The resolved configuration.
        manifest_directory: Holds the list of files to read.
        screen: Where progress is shown.
        outcome: Filled step by step, so that it tells what was done before an error.
        use_cache: Whether to take unchanged steps from the cache.
        until: Id of the last step that is wanted, one before the Trainer; None for all.

    Raises:
        StepFailedError: A step failed; nothing after it ran.
        StoppedError: The server of ML Metadata does not answer any more.
        TokenmillError: Another run is using the same output directory.
    """
    output_dir = os.path.abspath(config.output_dir)
    metadata = metadata_location(config)
    os.makedirs(output_dir, exist_ok=True)
    steps = create_components(config, manifest_directory, until)
    pipeline = tfx_pipeline.Pipeline(
        pipeline_name=config.run.name,
        pipeline_root=os.path.join(output_dir, "artifacts"),
        components=steps,
        enable_cache=use_cache,
        metadata_connection_config=connection_config(metadata),
        beam_pipeline_args=engine_arguments(config.engine),
    )
    config_toml = dump_config(config)

    def started(node_id: str, run_id: str) -> None:
        if not outcome.run_id:
            outcome.run_id = run_id
            record_run(open_store(metadata), run_id, config_toml, directory_id)
        screen.step_started(node_id)

    def finished(node_id: str) -> None:
        store = open_store(metadata)
        record = step_record(store, config.run.name, outcome.run_id, node_id)
        if record is not None:
            outcome.steps[node_id] = record
            if record.cached and screen.skips_cached:
                screen.stop()
                return
            summary: list[str] = []
            with screen.showing(f"what {node_id} counted"):
                summary = summarize_step(node_id, record)
            screen.step_finished(node_id, summary, record.cached)
            with screen.showing(f"what {node_id} remarks"):
                screen.remarks(step_remarks(node_id, record))

    living: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if config.train.strategy == "multi_worker":  # the others wait as long as this one lives
        living = show_life(config.training_directory)
    # Within the sign of life, which leaves the waiting workers the exit code.
    told = answering(config.run.metadata_url)
    observed = _observed(started, finished, screen)
    with run_lock(output_dir), living, told, jobs_end_with_us(), observed:
        directory_id = claim_directory(output_dir, config.run.metadata_url, config.run.name)
        root, running = pipeline.pipeline_info.pipeline_root, metadata_store_pb2.Execution
        mark_unfinished(open_store(metadata), config.run.name, root, running.FAILED)
        remove_left_over(root)
        execution = Execution(**config.execution.model_dump(), fresh=not use_cache)
        execution.write(config.training_directory)
        write_limits(config.limits_path, config.ledger_job().training_limits)
        progress.set_listener(screen.step_progress, screen.note, screen.step_read)
        try:
            with _portable_cache(output_dir, directory_id):
                local_dag_runner.LocalDagRunner().run(pipeline)
        finally:
            progress.set_listener(None)
            screen.stop()
            with contextlib.suppress(TokenmillError, mlmd.errors.StatusError):  # a server has gone
                mark_unfinished(open_store(metadata), config.run.name, root, running.CANCELED)


def remove_left_over(pipeline_root: str) -> None:
    """Remove the steps' temporary directories, which a run that was killed leaves behind.

    Nobody else uses them: the output directory's lock is held.
    """
    pattern = os.path.join(glob.escape(pipeline_root), "*", ".system", "executor_execution", "*")
    for directory in glob.glob(os.path.join(pattern, ".temp")):
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _observed(
    started: Callable[[str, str], None], finished: Callable[[str], None], screen: RunConsole
) -> Iterator[None]:
    """Call back before and after each step.

    LocalDagRunner has no hook; it looks its launcher up in the launcher module at every step.
    """

    class ObservedLauncher(launcher.Launcher):
        def launch(self):
            node_id = self._pipeline_node.node_info.id
            run_id = self._pipeline_runtime_spec.pipeline_run_id.field_value.string_value
            started(node_id, run_id)
            try:
                result = super().launch()
            except BaseException as error:
                over_budget = isinstance(error, OverBudgetError)
                screen.step_failed(node_id, "over the budget" if over_budget else "failed")
                if isinstance(error, Exception):
                    raise StepFailedError(node_id) from error
                raise
            finished(node_id)
            return result

    original = launcher.Launcher
    launcher.Launcher = ObservedLauncher
    try:
        yield
    finally:
        launcher.Launcher = original


@contextlib.contextmanager
def _portable_cache(output_dir: str, directory_id: str) -> Iterator[None]:
    """Keep the cache of a directory that was moved or copied.

    TFX has no hook; its launcher looks the function up in the module at every step.
    """
    original = cache_utils.get_cache_context
    cache_utils.get_cache_context = portable_cache_context(output_dir, directory_id)
    try:
        yield
    finally:
        cache_utils.get_cache_context = original
