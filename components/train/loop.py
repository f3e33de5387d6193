"""The training loop: steps under tf.distribute, read one step late so that a device never waits."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.data import (
    Share,
    distribute,
    evaluation_batches,
    reading,
    training_batches,
)
from components.train.distributed.collectives import Collectives
from components.train.distributed.strategy import (
    Workers,
    check_batch_size,
    has_accelerator,
)
from components.train.distributed.zero import ShardedAdamW
from components.train.execution import Execution
from components.train.optimizer import AdamW, LearningRate, make_optimizer
from components.train.pruning import Pruner, PruningSchedule
from components.train.session import MODEL_PREFIX, OPTIMIZER_PREFIX, Session
from components.train.spikes import is_spike, remember
from components.train.state import LossSums, TrainingRecord
from components.train.step import StepResult, make_eval_step, make_train_step, nll_and_weight
from components.train.telemetry.expert_load import expert_load_meter
from components.train.telemetry.samples import Sampler
from tokenmill.contracts.samples import SamplePoint
from tokenmill.contracts.training import Phase, Rewind
from tokenmill.errors import TokenmillError
from tokenmill.model.backbone import Backbone
from tokenmill.rows.mixture import StepPlan
from tokenmill.rows.packed_split import Batch, PackedSplit
from tokenmill.rows.schedule import row_order

_LOSS_POINTS = 200
# Times at which the load of experts is measured, evenly spaced, beside that before the first step.
_LOAD_POINTS = 10
_MOST_REWINDS = 10
_MOST_OVERFLOWS_IN_A_ROW = 100


# Draws a model's attention: entropies by head, and an image, uint8 [height, width, 3].
AttentionDrawer = Callable[[], tuple[dict[str, float], np.ndarray]]


class Trainer:
    """Trains a decoder or an encoder on packed rows.

    Args:
        strategy: Where the replicas are.
        model: Built under the strategy's scope.
        config: The section [train].
        plan: Steps and batch size.
        seed: Seed of data order and dropout.

    Raises:
        TokenmillError: The global batch does not divide over the replicas.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Backbone,
        config: TrainConfig,
        plan: StepPlan,
        seed: int,
    ):
        check_batch_size(strategy, plan.global_batch_size, config.accumulation_steps)
        self.strategy, self.model, self.config, self.plan = strategy, model, config, plan
        self.seed = seed
        replicas = strategy.num_replicas_in_sync
        slots_per_replica = (
            plan.global_batch_size
            * model.shape_config.sequence_length
            // (replicas * config.accumulation_steps)
        )
        self.collectives = Collectives()
        sharded = config.zero > 0 and replicas > 1  # one replica has nothing to split
        with strategy.scope():
            self.optimizer = make_optimizer(
                config,
                plan.steps,
                slots_per_replica,
                kind=ShardedAdamW if sharded else AdamW,
                balance_step=model.shape_config.balance_step,
            )
            inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            self._inner_optimizer = inner
            self.sharded: ShardedAdamW | None = inner if sharded else None
            if self.sharded is not None:
                self.sharded.collectives = self.collectives
                self.sharded.spread = model.builder.spread
            self.optimizer.build(model.trainable_variables)
        self.pruning = PruningSchedule.of(config.prune_sparsity, plan.steps)
        pruner = None
        if self.pruning is not None:
            pruner = Pruner(strategy, model.trainable_variables, self.pruning, config.prune_pattern)
        self.train_step = make_train_step(
            strategy,
            model,
            self.optimizer,
            clip_norm=config.clip_norm,
            jit_compile=config.jit_compile,
            seed=seed,
            z_loss=config.z_loss,
            accumulation_steps=config.accumulation_steps,
            pruner=pruner,
            collectives=self.collectives,
        )
        self.eval_step = make_eval_step(strategy, model, config.jit_compile)
        self.learning_rate = LearningRate(config, plan.steps)

    def variables(self) -> dict[str, Any]:
        """Return what a checkpoint holds, by unique name: weights, then the optimizer.

        Moments that are split over the replicas are not among them (`sharded` gathers them). Frozen
        weights are not either: they are those of the base model. Of experts that are spread, all
        are (`SpreadVariable`).
        """
        named: dict[str, Any] = {}
        of_model, of_optimizer = self.model.trainable_variables, self.optimizer.variables
        for prefix, variables in ((MODEL_PREFIX, of_model), (OPTIMIZER_PREFIX, of_optimizer)):
            for variable in variables:
                name = prefix + variable.path
                assert name not in named, name
                named[name] = variable
        spread = self.model.builder.spread
        return named if spread is None else spread.whole(named, self._inner_optimizer)

    def evaluate(self, split: PackedSplit) -> LossSums:
        """Return the loss sums over all rows of a split.

        Raises:
            TokenmillError: They are not finite, or there is none.
        """
        sums = np.zeros(3 if split.task == "classification" else 2)
        size = self.plan.global_batch_size
        batches = distribute(self.strategy, lambda share: evaluation_batches(split, size, share))
        with reading(split):
            for batch in batches:
                sums += [float(value) for value in self.eval_step(batch)]
        if not np.all(np.isfinite(sums)):
            raise TokenmillError(
                f"training diverged: the summed loss of the evaluation rows is {sums[0]}.",
                "Lower train.learning_rate or raise train.warmup_fraction.",
            )
        found = LossSums(*sums.tolist())
        if not found.loss_tokens:
            raise TokenmillError(
                f"none of the {split.manifest.tokens:,} held-out tokens is hidden, so that nothing "
                "can be evaluated.",
                "Give more text, or hold out more of it: --set corpus.eval_fraction=0.2",
            )
        return found

    def fit(
        self,
        train: PackedSplit,
        eval_rows: PackedSplit,
        session: Session | None = None,
        draw_attention: AttentionDrawer | None = None,
        sampler: Sampler | None = None,
    ) -> TrainingRecord:
        """Evaluate, train all steps that are left, and evaluate again.

        Args:
            train: Rows to train on.
            eval_rows: Rows to evaluate on.
            session: Where to continue from and save to; without one nothing is kept.
            draw_attention: Called for telemetry.
            sampler: Called before the first step, half way and after the last; the chief's only.

        Raises:
            StoppedError: A signal, or the loss of a worker; the state is saved.
            TokenmillError: The loss is not finite, or spikes again and again.
        """
        if session is None:
            targets = train.manifest.loss_tokens
            session = Session(Workers(self.strategy), {}, Execution(), None, targets)
        return _Fit(self, train, eval_rows, session, draw_attention, sampler).run()


class _UnreadStep(NamedTuple):
    """A step that has been started: what it will give, its rows' width, whether it was compiled."""

    result: StepResult
    width: int
    steady: bool


class _Fit:
    """One attempt: its record, its place in the data, and the step that is not read yet."""

    def __init__(
        self,
        trainer: Trainer,
        train: PackedSplit,
        eval_rows: PackedSplit,
        session: Session,
        draw_attention: AttentionDrawer | None,
        sampler: Sampler | None,
    ):
        self._trainer, self._session = trainer, session
        self._train, self._eval_rows, self._draw_attention = train, eval_rows, draw_attention
        self._clock, self._telemetry = session.phase_timer, session.telemetry
        self._plan, self._config = trainer.plan, trainer.config
        self._sampler = sampler
        self._unread: list[_UnreadStep] = []
        self._order = row_order(train, trainer.plan.global_batch_size, trainer.seed)
        self._measure_experts = expert_load_meter(trainer.model, eval_rows)
        points = _LOAD_POINTS if self._measure_experts is not None else 0
        self._load_steps = {round(self._plan.steps * i / points) for i in range(1, points + 1)}
        # Several workers have to come to the same decisions before they start the same step, and
        # a CPU does not run ahead: its next step would be timed as part of this one.
        self._lag = 1 if session.workers.count == 1 and has_accelerator() else 0
        self._asked_to_stop = self._asked_to_save = False
        # Rows of another width are another shape, which is compiled for itself (classification).
        self._compiled: set[int] = set()
        self._overflows_in_a_row = 0
        pruning = trainer.pruning
        self._mask_updates = frozenset([] if pruning is None else pruning.mask_updates())

    def run(self) -> TrainingRecord:
        session, clock = self._session, self._clock
        self._record = session.restore(self._trainer.variables(), self._plan, self._trainer.sharded)
        if self._record.eval_before is None:
            with clock.phase(Phase.EVALUATE_BEFORE):
                self._record.eval_before = self._trainer.evaluate(self._eval_rows)
        if self._config.on_spike == "rewind" and self._record.step == 0:
            session.save_now(self._record)
        self._sample_if_due()
        if self._lacks_dense_loss():  # no step of this attempt leads there
            self._evaluate()
        elif self._record.step == 0:
            self._tell_expert_load()
        self._train_all()
        saved = session.save_now(self._record)
        if session.stop and session.workers.count == 1:
            raise session.stop.error(self._record.step, self._plan.steps, saved)
        with clock.phase(Phase.EVALUATE_AFTER):
            self._record.eval_after = self._trainer.evaluate(self._eval_rows)
        clock.book()
        return self._record

    def _train_all(self) -> None:
        session, steps = self._session, self._plan.steps
        batches = self._batches()
        while self._record.step < steps:
            started = self._record.step + len(self._unread)
            with_gradients = False
            if started < steps:
                with_gradients = self._session.wants_details(started + 1, steps)
                self._telemetry.profile(started + 1)
                self._start_step(batches, with_gradients)
            # A step is read while the next one runs, or at once if its state is needed.
            # One that compiles is read alone, so that no other is booked as compiling.
            last = self._record.step + len(self._unread)
            compiles = bool(self._unread) and not self._unread[-1].steady
            settle = compiles or last == steps or with_gradients or self._must_settle(last)
            while len(self._unread) > (0 if settle else self._lag):
                gradients = self._unread[0].result.gradients
                with self._clock.phase(self._step_phase(self._unread[0].steady)):
                    rewound = self._read_step()
                if rewound:
                    batches = self._batches()
                    break
                if gradients and self._telemetry.writer is not None:
                    self._write_details(gradients)
            if self._unread:
                continue
            self._sample_if_due()
            if self._record.step in self._load_steps:
                self._tell_expert_load()
            self._evaluate_if_due()
            forced = self._is_rewind_point(self._record.step) or self._asked_to_save
            session.save_if_due(self._record, forced=forced)
            self._stop_if_asked()

    def _batches(self) -> Iterator[Batch]:
        """Return the batches of the steps that are left."""
        size, record = self._plan.global_batch_size, self._record
        first, last = record.step + record.data_offset, self._plan.steps + record.data_offset
        seed = self._trainer.seed
        return iter(
            distribute(
                self._trainer.strategy,
                lambda share: training_batches(self._train, size, last, seed, first, share),
            )
        )

    def _step_phase(self, steady: bool) -> Phase:
        if steady:
            return Phase.STEPS
        return Phase.RESTART if self._record.resumes else Phase.COMPILE

    def _start_step(self, batches: Iterator[Batch], with_gradients: bool) -> None:
        asks = [
            tf.constant(1.0 if ask else 0.0) for ask in (self._session.stop, self._asks_to_save())
        ]
        done = self._record.step + len(self._unread)
        position = done + self._record.data_offset
        width = self._order.width_of_step(position)
        steady = width in self._compiled
        with self._clock.phase(self._step_phase(steady)):
            waiting = self._clock.phase(Phase.INPUT if steady else self._step_phase(steady))
            with waiting, reading(self._train):
                batch = next(batches)
            number = tf.constant(done + 1)
            result = self._trainer.train_step(batch, asks[0], with_gradients, asks[1], number)
            self._unread.append(_UnreadStep(result, width, steady))
            if not steady:
                float(result.nll)  # the device has compiled when there is a result
                self._compiled.add(width)

    def _asks_to_save(self) -> bool:
        """Return whether the chief wants all to save after the step that is about to start."""
        started = self._record.step + len(self._unread)
        return self._session.saves_together and self._session.is_due(started + 1)

    def _must_settle(self, step: int) -> bool:
        every = self._session.execution.evaluate_steps
        return (
            self._session.is_due(step)
            or (every is not None and step % every == 0)
            or self._is_rewind_point(step)
            or self._is_sample_point(step)
            or step in self._load_steps
            or self._begins_pruning(step)
            or self._asked_to_stop
        )

    def _is_rewind_point(self, step: int) -> bool:
        return self._config.on_spike == "rewind" and step % self._config.rewind_steps == 0

    def _begins_pruning(self, step: int) -> bool:
        pruning = self._trainer.pruning
        return pruning is not None and step == pruning.first_step

    def _is_sample_point(self, step: int) -> bool:
        return self._sampler is not None and step in (0, self._plan.steps // 2, self._plan.steps)

    def _sample_if_due(self) -> None:
        """Sample once a time: what a checkpoint holds of earlier attempts stays as it is."""
        record = self._record
        taken = any(point.step == record.step for point in record.samples)
        if self._sampler is None or not self._is_sample_point(record.step) or taken:
            return
        if self._session.stop:  # it is to end now; the next attempt samples here
            return
        with self._clock.phase(Phase.SAMPLES):
            record.samples.append(SamplePoint(step=record.step, samples=self._sampler()))

    def _read_step(self) -> bool:
        """Add the oldest unread step to the record; return whether training went back instead."""
        (result, width, steady), record = self._unread.pop(0), self._record
        nll, weight, norm = float(result.nll), float(result.weight), float(result.norm)
        loss = nll / max(weight, 1.0)
        if bool(result.refused):
            self._refuse(loss, norm)
        # Agreed by all workers in this very step, so that they stop and save at the same one.
        self._asked_to_stop = self._asked_to_stop or float(result.stop) > 0
        self._asked_to_save = float(result.save) > 0
        if self._config.on_spike != "off":
            if record.step in self._mask_updates:
                # The loss rises with the zeros, whichever rows are read: that is no spike.
                record.recent_losses.clear()
            spikes = is_spike(record.recent_losses, loss, self._config.spike_deviations)
            if spikes and self._handle_spike(loss):
                return True
            remember(record.recent_losses, loss)
        self._count_overflow(norm)
        record.step += 1
        slots = self._plan.global_batch_size * width
        record.trained_loss_tokens += int(weight)
        record.trained_slots += slots
        record.steady_slots += slots if steady else 0
        every = max(1, self._plan.steps // _LOSS_POINTS)
        if (record.step - 1) % every == 0 or record.step == self._plan.steps:
            record.loss_curve.append((record.step, loss))
        self._tell(loss, norm)
        return False

    def _tell(self, loss: float, norm: float) -> None:
        record = self._record
        applied = record.step - 1 - record.overflows
        with self._clock.phase(Phase.TELEMETRY):
            rate = self._trainer.learning_rate
            self._telemetry.step(record, loss, norm, lambda: float(rate(applied)))
        self._session.check_budget(record)

    def _count_overflow(self, norm: float) -> None:
        if math.isfinite(norm):
            self._overflows_in_a_row = 0
            return
        self._record.overflows += 1
        self._overflows_in_a_row += 1
        if self._overflows_in_a_row > _MOST_OVERFLOWS_IN_A_ROW:
            raise TokenmillError(
                f"gradients have overflowed float16 in {self._overflows_in_a_row} steps in a row, "
                f"at step {self._record.step} of {self._plan.steps}.",
                'Lower train.learning_rate, or set train.precision = "mixed_bfloat16".',
            )

    def _refuse(self, loss: float, norm: float) -> None:
        """Raise an error that names the rows of the step without a finite loss."""
        position, size = self._record.step + self._record.data_offset, self._plan.global_batch_size
        seed = self._trainer.seed
        rows, _ = self._order.rows_of_step(position)
        odd = rows
        if self._session.workers.count == 1:
            one_by_one = Share(0, size, size)
            batches = training_batches(self._train, size, position + 1, seed, position, one_by_one)
            losses = [float(nll_and_weight(self._trainer.model, row)[0]) for row in batches]
            odd = rows if np.all(np.isfinite(losses)) else rows[~np.isfinite(losses)]
        saved = self._session.save_diagnostic(self._record)
        where = f" The state before the step: {saved}." if saved else ""
        clipped = ""
        if math.isfinite(loss) and math.isfinite(norm):
            clipped = f" (not finite once clipped to train.clip_norm = {self._config.clip_norm:g})"
        raise TokenmillError(
            f"training diverged: loss {loss}, gradient norm {norm}{clipped} at step "
            f"{self._record.step + 1} of {self._plan.steps}, rows "
            f"{', '.join(map(str, odd))}; the step was not applied.{where}",
            "Lower train.learning_rate or raise train.warmup_fraction.",
        )

    def _handle_spike(self, loss: float) -> bool:
        """Report a spike and, if so set, go back before it; return whether it did."""
        record, config = self._record, self._config
        if config.on_spike != "rewind":
            self._telemetry.event("spike", record.step + 1, self._clock.total, loss=loss)
            return False
        every = config.rewind_steps
        target = max(0, (record.step - 1) // every * every)
        if len(record.rewinds) >= _MOST_REWINDS:
            raise TokenmillError(
                f"the loss has spiked {_MOST_REWINDS + 1} times, now to {loss:.3f} at step "
                f"{record.step + 1} of {self._plan.steps}.",
                "Lower train.learning_rate or raise train.spike_deviations.",
            )
        self._unread.clear()
        skipped = record.step + 1 - target
        rewind = Rewind(
            spike_step=record.step + 1, loss=loss, to_step=target, skipped_steps=skipped
        )
        self._record = self._session.rewind(record, target)
        self._record.data_offset = record.data_offset + skipped
        self._record.rewinds = [*record.rewinds, rewind]
        self._telemetry.event(
            "rewind",
            target,
            self._clock.total,
            skipped_steps=skipped,
            spike_step=rewind.spike_step,
            loss=loss,
        )
        return True

    def _tell_expert_load(self) -> None:
        """Write the load of experts after this step, once: an earlier attempt may have, too."""
        step, log = self._record.step, self._telemetry.log
        if self._measure_experts is None or log is None or log.has_measured("expert_load", step):
            return
        with self._clock.phase(Phase.TELEMETRY):
            layers = self._measure_experts()
            if layers is None:  # an overflow on these rows alone, which training goes on from
                self._telemetry.event("expert_load_not_finite", step, self._clock.total)
            else:
                self._telemetry.expert_load(step, self._clock.total, layers)

    def _write_details(self, gradients: tuple[tf.Tensor, ...]) -> None:
        self._tell_expert_load()
        with self._clock.phase(Phase.TELEMETRY):
            step = self._record.step
            self._telemetry.distributions(step, self._trainer.model.trainable_variables, gradients)
            if self._draw_attention is not None:
                self._telemetry.attention(step, self._draw_attention)

    def _lacks_dense_loss(self) -> bool:
        """Return whether pruning begins now, and the dense weights' loss is not known."""
        record = self._record
        return self._begins_pruning(record.step) and record.eval_before_pruning is None

    def _evaluate_if_due(self) -> None:
        every, record = self._session.execution.evaluate_steps, self._record
        regular = every is not None and record.step % every == 0 and record.step < self._plan.steps
        if regular or self._lacks_dense_loss():
            self._evaluate()

    def _evaluate(self) -> None:
        record = self._record
        with self._clock.phase(Phase.EVALUATE):
            sums = self._trainer.evaluate(self._eval_rows)
        if self._lacks_dense_loss():
            record.eval_before_pruning = sums
        record.evaluations.append((record.step, sums.loss))
        self._tell_expert_load()
        self._telemetry.evaluation(record.step, self._clock.total, sums.loss, sums.accuracy)
        self._session.save_if_due(record, forced=True)

    def _stop_if_asked(self) -> None:
        if self._asked_to_stop and self._record.step < self._plan.steps:
            saved = self._session.save_now(self._record)
            raise self._session.stop.error(self._record.step, self._plan.steps, saved)
