"""The training loop: one step function under tf.distribute, and what it measured."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf

from components import progress
from components.errors import TokenmillError
from components.pack.rows import Batch, PackedSplit
from components.train.data import evaluation_batches, training_batches
from components.train.models import dropout_seed, loss_sums
from components.train.models.trunk import Trunk
from components.train.optimizer import (
    OptimizerSettings,
    clip_mean_gradients,
    make_optimizer,
    scale_loss,
)
from components.train.plan import StepPlan

_LOSS_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class TrainSettings(OptimizerSettings):
    """The [train] section's part of the loop; units as there."""

    jit_compile: bool
    seed: int
    z_loss: float = 0.0


class LossSums(NamedTuple):
    """Sums over targets, never averages of averages.

    Attributes:
        nll: Negative log-likelihood in nats.
        targets: Targets counted.
    """

    nll: float
    targets: float


@dataclass
class TrainingRecord:
    """What happened: steps, losses and where the seconds went."""

    plan: StepPlan
    trained_targets: int = 0
    trained_slots: int = 0
    loss_curve: list[tuple[int, float]] = field(default_factory=list)
    eval_before: LossSums | None = None
    eval_after: LossSums | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The tf.distribute strategy of the `train.strategy` key."""
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    return tf.distribute.get_strategy()


def nll_and_weight(model: Trunk, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Summed negative log-likelihood in nats and summed weight of a batch, float32 scalars."""
    sums = loss_sums(model, batch)
    return sums.nll, sums.weight


class Trainer:
    """Trains a decoder on packed rows.

    Args:
        strategy: Where the replicas are.
        model: Built under the strategy's scope.
        settings: Optimiser and seed.
        plan: Steps and batch size.
        precision: The model's dtype policy.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Trunk,
        settings: TrainSettings,
        plan: StepPlan,
        precision: str = "float32",
    ):
        self._strategy, self._model, self._settings, self._plan = strategy, model, settings, plan
        with strategy.scope():
            slots = plan.global_batch_size * model.shape_config.sequence_length
            self._optimizer = make_optimizer(
                settings, plan.steps, precision, slots // strategy.num_replicas_in_sync
            )
            self._optimizer.build(model.trainable_variables)
        self._train_step = self._make_train_step()
        self._eval_step = self._make_eval_step()

    def _make_train_step(self) -> Callable[[Any], Any]:
        model, optimizer, settings = self._model, self._optimizer, self._settings
        strategy = self._strategy

        # XLA compiles what has no collectives in it; the sums over replicas stay outside.
        @tf.function(jit_compile=settings.jit_compile)
        def gradients_of_sum(batch: Batch, seed):
            with tf.GradientTape() as tape:
                sums = loss_sums(model, batch, seed, settings.z_loss)
                scaled = scale_loss(optimizer, sums.objective)
            gradients = tape.gradient(scaled, model.trainable_variables)
            return sums.nll, sums.weight, [tf.convert_to_tensor(g) for g in gradients]

        def replica_step(batch: Batch):
            context = tf.distribute.get_replica_context()
            seed = dropout_seed(
                settings.seed, optimizer.iterations, context.replica_id_in_sync_group
            )
            nll, weight, gradients = gradients_of_sum(batch, seed)
            if strategy.num_replicas_in_sync > 1:
                nll, weight, gradients = context.all_reduce(
                    tf.distribute.ReduceOp.SUM, [nll, weight, gradients]
                )
            # The mean over all targets of the global batch, wherever they lie.
            gradients, norm = clip_mean_gradients(optimizer, gradients, weight, settings.clip_norm)
            # Keras adds up gradients over the replicas, but these are the same on each.
            gradients = [g / strategy.num_replicas_in_sync for g in gradients]
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return nll, weight, norm

        @tf.function
        def step(batch: Batch):
            results = strategy.run(replica_step, args=(batch,))
            return [strategy.experimental_local_results(r)[0] for r in results]

        return step

    def _make_eval_step(self) -> Callable[[Any], Any]:
        model, strategy = self._model, self._strategy
        compiled = tf.function(
            lambda batch: nll_and_weight(model, batch), jit_compile=self._settings.jit_compile
        )

        @tf.function
        def step(batch: Batch):
            sums = strategy.run(compiled, args=(batch,))
            return [strategy.reduce(tf.distribute.ReduceOp.SUM, s, axis=None) for s in sums]

        return step

    def evaluate(self, split: PackedSplit) -> LossSums:
        """Loss sums over all rows of a split."""
        nll = targets = 0.0
        batches = evaluation_batches(split, self._plan.global_batch_size)
        for batch in self._strategy.experimental_distribute_dataset(batches):
            batch_nll, batch_weight = self._eval_step(batch)
            nll += float(batch_nll)
            targets += float(batch_weight)
        return LossSums(nll, targets)

    def fit(self, train: PackedSplit, held_out: PackedSplit) -> TrainingRecord:
        """Evaluates, trains all steps, evaluates again.

        Raises:
            TokenmillError: The loss is not finite.
        """
        record = TrainingRecord(self._plan)
        clock = _PhaseClock(record.seconds)
        with clock.phase("evaluate_before"):
            record.eval_before = self.evaluate(held_out)
        plan = self._plan
        batches = training_batches(train, plan.global_batch_size, plan.steps, self._settings.seed)
        iterator = iter(self._strategy.experimental_distribute_dataset(batches))
        every = max(1, plan.steps // _LOSS_POINTS)
        slots_per_step = plan.global_batch_size * train.sequence_length
        started = time.perf_counter()
        for step in range(plan.steps):
            with clock.phase("compile" if step == 0 else "steps"):
                with clock.phase("compile" if step == 0 else "input"):
                    batch = next(iterator)
                nll, weight, norm = (float(x) for x in self._train_step(batch))
            record.trained_targets += int(weight)
            record.trained_slots += slots_per_step
            loss = nll / max(weight, 1.0)
            if not (loss < float("inf") and norm < float("inf")):  # also true for NaN
                raise TokenmillError(
                    f"training diverged: loss {loss}, gradient norm {norm} at step {step + 1} of "
                    f"{plan.steps}.",
                    "Lower train.learning_rate or raise train.warmup_fraction.",
                )
            if step % every == 0 or step == plan.steps - 1:
                record.loss_curve.append((step + 1, loss))
            rate = record.trained_slots / (time.perf_counter() - started)
            progress.report(step + 1, plan.steps, f"loss {loss:.3f}  {rate:,.0f} tokens/s")
        with clock.phase("evaluate_after"):
            record.eval_after = self.evaluate(held_out)
        return record


class _PhaseClock:
    """Adds up seconds by phase; a phase inside another does not count for the outer one."""

    def __init__(self, seconds: dict[str, float]):
        self._seconds = seconds
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._book()
        self._running.append(name)
        try:
            yield
        finally:
            self._book()
            self._running.pop()

    def _book(self) -> None:
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now
