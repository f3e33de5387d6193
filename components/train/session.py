"""One attempt at a training: finds where the last one got to, saves as it goes, accounts for it."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from components.train import fingerprint
from components.train.checkpoint.manager import CheckpointSchedule, CheckpointWriter
from components.train.checkpoint.store import Checkpoint, CheckpointDirectory, KeepPolicy
from components.train.distributed.spread_experts import SpreadVariable
from components.train.distributed.strategy import Workers
from components.train.distributed.zero import ShardedAdamW
from components.train.execution import Execution
from components.train.pruning import PruningSchedule
from components.train.state import TrainingRecord
from components.train.telemetry.metrics_log import METRICS_NAME
from components.train.telemetry.phase_timer import PhaseTimer
from components.train.telemetry.writer import TENSORBOARD_NAME, Telemetry
from tokenmill import progress
from tokenmill.contracts.training import Phase, Resume
from tokenmill.contracts.training_limits import TrainingLimits
from tokenmill.cost.meter import BudgetMeter
from tokenmill.errors import TokenmillError
from tokenmill.files import copy_into
from tokenmill.preemption import StopRequest
from tokenmill.rows.mixture import StepPlan

CHECKPOINTS_NAME, DIAGNOSTIC_NAME = "checkpoints", "diagnostic"
# Of the model's and the optimizer's variables in a checkpoint.
MODEL_PREFIX, OPTIMIZER_PREFIX = "model/", "optimizer/"
# Settings that say how many steps there are.
_STEPS_KEYS = frozenset({"train.epochs", "train.max_steps"})
# Phases whose seconds are lost when their steps are.
_LOSABLE_PHASES = (Phase.COMPILE, Phase.INPUT, Phase.STEPS)


class Session:
    """Checkpoints, telemetry, budget and signals of one attempt.

    Args:
        workers: Who takes part; only the chief writes.
        job: The training's settings, flat (components/train/fingerprint.py).
        execution: How it is carried out.
        training_directory: Holds a directory for each training; None saves and writes nothing.
        unique_targets: Loss tokens of one pass over the training split (in masked-lm expected).
        resume_from: A directory of checkpoints to start from if this training has none.
        stop: Filled by signals.
        target_share: Targets of one pass by these loss tokens (classification).
        limits: Price and budget; None for none.
        flops_per_token: FLOPs of training on a token, for MFU; None if not known.
    """

    def __init__(
        self,
        workers: Workers,
        job: Mapping[str, Any],
        execution: Execution,
        training_directory: str | None,
        unique_targets: float,
        resume_from: str | None = None,
        stop: StopRequest | None = None,
        target_share: float = 1.0,
        limits: TrainingLimits | None = None,
        flops_per_token: float | None = None,
    ):
        self.workers, self.execution, self.job = workers, execution, dict(job)
        self.stop = stop if stop is not None else StopRequest()
        self.phase_timer = PhaseTimer({})
        self.directory: str | None = None
        self.checkpoints: CheckpointDirectory | None = None
        if training_directory is not None:
            self.directory = os.path.join(training_directory, fingerprint.directory_name(job))
            self.checkpoints = CheckpointDirectory(os.path.join(self.directory, CHECKPOINTS_NAME))
        writes = workers.is_chief and self.directory is not None
        self.telemetry = Telemetry(
            self.directory if writes else None,
            execution,
            unique_targets,
            target_share,
            limits,
            flops_per_token,
        )
        self._resume_from = resume_from
        self._budget = None if limits is None else BudgetMeter.of(limits)
        self._writer: CheckpointWriter | None = None
        self._schedule: CheckpointSchedule | None = None
        self._variables: Mapping[str, Any] = {}
        self._sharded: ShardedAdamW | None = None
        self._saved_step: int | None = None

    def restore(
        self,
        variables: Mapping[str, Any],
        plan: StepPlan,
        sharded: ShardedAdamW | None = None,
    ) -> TrainingRecord:
        """Load the last attempt's weights; return its record, or an empty one if there was none.

        Args:
            variables: Keras variables by unique name, which a checkpoint holds.
            plan: The run's steps.
            sharded: Holds the moments, which a checkpoint holds too, where they are split over
                replicas.

        Raises:
            TokenmillError: The checkpoint does not fit the job.
        """
        self._variables, self._sharded = variables, sharded
        if self.checkpoints is None:
            return TrainingRecord(
                plan, seconds=self.phase_timer.seconds, cpu_seconds=self.phase_timer.cpu_seconds
            )
        with self.phase_timer.phase(Phase.RESTART):
            record = self._restore(self.checkpoints, plan)
        if self.workers.is_chief:
            keep = KeepPolicy(
                self.execution.keep_checkpoints,
                self.execution.keep_checkpoint_every_steps,
                self.execution.keep_best_checkpoint,
            )
            self._writer = CheckpointWriter(self.checkpoints, keep, self._on_written)
            bytes_each = sum(
                int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in variables.values()
            )
            bytes_each += sum(
                int(np.prod(shape)) * tf.float32.size for shape in self._moment_shapes().values()
            )
            self._schedule = CheckpointSchedule(self.execution, bytes_each)
        return record

    def _restore(self, own: CheckpointDirectory, plan: StepPlan) -> TrainingRecord:
        assert self.directory is not None
        source, step = own, -1
        if self.workers.is_chief:
            if self.execution.fresh and tf.io.gfile.exists(self.directory):
                tf.io.gfile.rmtree(self.directory)
            tf.io.gfile.makedirs(self.directory)
            own.delete_unfinished()
            step = self._newest(own)
        step = self.workers.chiefs(step)  # the others look only when the chief has chosen
        name = int(fingerprint.directory_name(self.job)[:8], 16)
        if self.workers.chiefs(name) != name:
            raise TokenmillError(
                "this worker was given another job or other rows than the chief.",
                "Start all workers of a training with the same configuration.",
            )
        if step < 0 and self._resume_from:
            source = CheckpointDirectory(self._resume_from)
            step = self.workers.chiefs(self._newest(source) if self.workers.is_chief else -1)
            if step < 0:
                raise TokenmillError(
                    f"train.resume_from = {self._resume_from}: no checkpoint there.",
                    "Expected a directory that holds step-<number> directories.",
                )
        record = TrainingRecord(plan)
        changed: dict[str, tuple[Any, Any]] = {}
        if step >= 0:
            checkpoint = source.read(step)
            changed = fingerprint.changes(checkpoint.state["job"], self.job)
            fingerprint.check_changes(changed, source.path(step))
            record = TrainingRecord.from_json(plan, checkpoint.state["record"])
            if record.step > plan.steps:
                raise TokenmillError(
                    f"{source.path(step)} has trained {record.step:,} steps, the run has "
                    f"{plan.steps:,}.",
                    "Raise train.epochs or train.max_steps.",
                )
            self._check_pruning_goes_on(changed, record, plan.steps, checkpoint.variables)
            if not _STEPS_KEYS.isdisjoint(changed):  # pruning begins at another step
                record.eval_before_pruning = None
            self._assign(checkpoint.variables, source.path(step))
            self._saved_step = step if source is own else None
        self._account(record, source, resumed=step >= 0, is_own=source is own, changed=changed)
        return record

    def _newest(self, source: CheckpointDirectory) -> int:
        checkpoint, problems = source.newest()
        for problem in problems:
            instead = f"step {checkpoint.step:,}" if checkpoint else "the beginning"
            _report(f"corrupt checkpoint: {problem}; continuing from {instead} instead")
        return checkpoint.step if checkpoint is not None else -1

    def _check_pruning_goes_on(
        self,
        changed: Mapping[str, Any],
        record: TrainingRecord,
        steps: int,
        values: Mapping[str, np.ndarray],
    ) -> None:
        """Check that a training past where pruning begins is pruned as its schedule says."""
        schedule = PruningSchedule.of(self.job.get("train.prune_sparsity", 0.0), steps)
        if schedule is None or record.step <= schedule.first_step:
            return
        is_new = any(name.startswith("train.prune_") for name in changed)
        # Fewer steps in all than it was trained for: masks that are past would never come.
        lacks = any(schedule.lacks_zeros(record.step, *named) for named in values.items())
        if not is_new and not lacks:
            return
        raise TokenmillError(
            f"train.prune_sparsity = {schedule.target}: the checkpoint has trained "
            f"{record.step:,} of {steps:,} steps, and pruning begins after "
            f"{schedule.first_step:,}.",
            f"Raise train.max_steps to at least {-(-3 * record.step // 2):,}.",
        )

    def _assign(self, values: Mapping[str, np.ndarray], where: str) -> None:
        shapes = {name: tuple(v.shape) for name, v in self._variables.items()}
        moments = self._moment_shapes()
        shapes |= moments
        if shapes != {name: v.shape for name, v in values.items()}:
            odd = sorted(set(shapes.items()) ^ {(name, v.shape) for name, v in values.items()})
            raise TokenmillError(
                f"{where} holds other variables than this training has, such as {odd[0][0]} "
                f"{odd[0][1]}.",
                "It was written by another version or for another precision; run with --no-cache.",
            )
        for name, variable in self._variables.items():
            variable.assign(values[name])
        if self._sharded is not None:
            self._sharded.assign_moments(
                {name.removeprefix(OPTIMIZER_PREFIX): values[name] for name in moments}
            )

    def _moment_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the moments that are split, by the names of a checkpoint."""
        if self._sharded is None:
            return {}
        shapes = self._sharded.moment_shapes()
        return {OPTIMIZER_PREFIX + name: shape for name, shape in shapes.items()}

    @property
    def saves_together(self) -> bool:
        """Whether every worker takes part in a save: each has a part of moments or experts."""
        has_parts = self._sharded is not None or bool(self._spread_variables())
        return has_parts and self.workers.count > 1 and self.directory is not None

    def _spread_variables(self) -> list[SpreadVariable]:
        return [v for v in self._variables.values() if isinstance(v, SpreadVariable)]

    def _account(
        self,
        record: TrainingRecord,
        source: CheckpointDirectory,
        *,
        resumed: bool,
        is_own: bool,
        changed: dict[str, tuple[Any, Any]],
    ) -> None:
        """Count what the last attempt did beyond its last checkpoint as lost."""
        for phase, seconds in record.seconds.items():
            self.phase_timer.seconds[phase] = self.phase_timer.seconds.get(phase, 0.0) + seconds
        cpu = self.phase_timer.cpu_seconds
        for phase, seconds in record.cpu_seconds.items():
            cpu[phase] = cpu.get(phase, 0.0) + seconds
        saved_seconds = sum(record.seconds.values())
        record.seconds, record.cpu_seconds = self.phase_timer.seconds, cpu
        if self.telemetry.log is None:
            return
        reached, reached_seconds = self.telemetry.log.rewind(record.step)
        if not resumed and not reached:
            return
        resume = Resume(
            from_step=record.step,
            lost_steps=max(0, reached - record.step) if is_own else 0,
            lost_seconds=max(0.0, reached_seconds - saved_seconds) if is_own else 0.0,
            changed=changed,
        )
        self.phase_timer.seconds[Phase.LOST] = (
            self.phase_timer.seconds.get(Phase.LOST, 0.0) + resume.lost_seconds
        )
        record.resumes.append(resume)
        self.telemetry.event(
            "resume",
            record.step,
            self.phase_timer.total,
            source=source.directory,
            changed=changed,
            lost_steps=resume.lost_steps,
            lost_seconds=resume.lost_seconds,
        )
        self.telemetry.flush()
        message = f"continuing after step {record.step:,} of {record.plan.steps:,}"
        if resume.lost_steps:
            message += f"; {resume.lost_steps:,} steps are done again"
        if changed:
            message += f"; changed: {fingerprint.describe(changed)}"
        _report(message)

    def wants_details(self, step: int, steps: int) -> bool:
        """Return whether a step's distributions and attention maps are due, alike on all workers.

        Args:
            step: From 1.
            steps: Steps in all.
        """
        every = self.execution.detail_steps
        return self.directory is not None and every is not None and step % every == 0

    def save_if_due(self, record: TrainingRecord, *, forced: bool = False) -> None:
        """Save after a step, in the background, if it is time; the chief writes.

        Where all save together, it is time when all say so (`forced`), and every worker calls this.

        Args:
            record: Totals after the step; all steps that have been started are in it.
            forced: Save whatever the schedule says.
        """
        if self._saved_step == record.step or (self.saves_together and not forced):
            return
        if self._writer is None or self._schedule is None:
            self._contribute(record)
            return
        if not forced and not self.is_due(record.step):
            return
        with self.phase_timer.phase(Phase.CHECKPOINT):
            self._submit(self._writer, record)

    def is_due(self, step: int) -> bool:
        """Return whether `save_if_due` would save after this step, on this worker."""
        if self._writer is None or self._schedule is None:
            return False
        # By the clock, a save that takes long puts off the next; by steps, it is waited for.
        late = self._writer.busy and self._schedule.interval_seconds is not None
        return not late and self._schedule.due(step)

    def save_now(self, record: TrainingRecord) -> str:
        """Save and wait until it is done; return where, empty on workers that do not save."""
        if self.saves_together:
            with self.phase_timer.phase(Phase.CHECKPOINT):
                saved = self._saved_step == record.step
                if saved and self._writer is not None:
                    saved = self._writer.wait()
                if not self.workers.chiefs(int(saved)):
                    self._saved_step = None
        if self._writer is None or self.checkpoints is None:
            if self._saved_step != record.step:
                self._contribute(record)
            return ""
        with self.phase_timer.phase(Phase.CHECKPOINT):
            if self._saved_step != record.step or not self._writer.wait():
                self._submit(self._writer, record)
            return self.checkpoints.path(record.step) if self._writer.wait() else ""

    def _contribute(self, record: TrainingRecord) -> None:
        """Hand this worker's parts to the chief, who saves, in the order of `_snapshot`."""
        if self.saves_together:
            with self.phase_timer.phase(Phase.CHECKPOINT):
                for variable in self._spread_variables():
                    variable.numpy()
                if self._sharded is not None:
                    self._sharded.gather_moments(keep=False)
            self._saved_step = record.step

    def _submit(self, writer: CheckpointWriter, record: TrainingRecord) -> None:
        self.telemetry.flush()  # the log must not lag behind what it is compared with
        writer.submit(self._snapshot(record), self._protected(record.step))
        self._saved_step = record.step
        if self._schedule is not None:
            self._schedule.saved()

    def _snapshot(self, record: TrainingRecord) -> Checkpoint:
        self.phase_timer.book()
        variables = {name: np.array(v.numpy()) for name, v in self._variables.items()}
        if self._sharded is not None:
            for name, moment in self._sharded.gather_moments(keep=True).items():
                variables[OPTIMIZER_PREFIX + name] = moment
        return Checkpoint(record.step, variables, {"record": record.to_json(), "job": self.job})

    def _protected(self, step: int) -> frozenset[int]:
        """Return the steps that a rewind may need."""
        if self.job.get("train.on_spike") != "rewind":
            return frozenset()
        every = self.job["train.rewind_steps"]
        newest = step // every * every
        return frozenset({newest, newest - every})

    def rewind(self, record: TrainingRecord, step: int) -> TrainingRecord:
        """Load weights and totals of an earlier checkpoint; the seconds since are lost.

        Args:
            record: Where the training is.
            step: The checkpoint's.

        Returns:
            The record at that step.
        """
        assert self.checkpoints is not None
        with self.phase_timer.phase(Phase.RESTART):
            if self._writer is not None:
                self._writer.wait()
            self.workers.barrier()  # the chief's last save is whole before the others read
            checkpoint = self.checkpoints.read(step)
            self._assign(checkpoint.variables, self.checkpoints.path(step))
            self.workers.barrier()
            if self.workers.is_chief:
                for later in self.checkpoints.steps():
                    if later > step:
                        self.checkpoints.delete(later)
        back = TrainingRecord.from_json(record.plan, checkpoint.state["record"])
        for now, then in (
            (self.phase_timer.seconds, back.seconds),
            (self.phase_timer.cpu_seconds, back.cpu_seconds),
        ):
            for phase in _LOSABLE_PHASES:
                since = now.get(phase, 0.0) - then.get(phase, 0.0)
                now[phase] = now.get(phase, 0.0) - since
                now[Phase.LOST] = now.get(Phase.LOST, 0.0) + since
        back.seconds, back.resumes = self.phase_timer.seconds, record.resumes
        back.cpu_seconds = self.phase_timer.cpu_seconds
        self._saved_step = None
        if self.telemetry.log is not None:
            self.telemetry.log.rewind(step)
        return back

    def save_diagnostic(self, record: TrainingRecord) -> str:
        """Save beside the checkpoints, where no run continues from; return where."""
        if self.directory is None or not self.workers.is_chief:
            self._contribute(record)
            return ""
        directory = CheckpointDirectory(os.path.join(self.directory, DIAGNOSTIC_NAME))
        directory.write(self._snapshot(record))
        return directory.path(record.step)

    def check_budget(self, record: TrainingRecord) -> None:
        """Ask to stop if the run is over its budget; warn once if it will be."""
        if self._budget is None or not self.workers.is_chief:
            return
        decision = self._budget.update(
            seconds_so_far=self.phase_timer.total,
            tokens_so_far=record.trained_slots,
            step=record.step,
            steps=record.plan.steps,
        )
        if decision is not None:
            self.telemetry.event(
                "budget", record.step, self.phase_timer.total, decision=decision,
                message=self._budget.message,
            )  # fmt: skip
            _report(self._budget.message)
        if decision == "stop":
            self.stop.reason = TokenmillError(
                f"{self._budget.message} The state is saved.",
                "Raise the budget and run again: training continues where it stopped.",
            )

    def _on_written(self, step: int, size: int, seconds: float) -> None:
        if self._schedule is not None:
            self._schedule.write_seconds = max(seconds, 1e-3)
        logging.info("checkpoint of step %d: %d bytes in %.2f s", step, size, seconds)

    def close(self) -> None:
        """Wait for a save under way and close the telemetry."""
        if self._writer is not None:
            self._writer.close()
        self.telemetry.close()

    def publish(self, run_directory: str) -> None:
        """Copy scalars and TensorBoard's files to where the run's results are."""
        if self.directory is None or not self.workers.is_chief:
            return
        copy_into(os.path.join(self.directory, METRICS_NAME), run_directory)
        copy_into(os.path.join(self.directory, TENSORBOARD_NAME), run_directory)


def _report(message: str) -> None:
    logging.warning(message)
    progress.say(message)
