"""Proxy runs: small trainings that stand for a large one, many of them in one process.

A trunk is trained at a constant learning rate; wherever a token count is wanted, a branch decays
from it and is evaluated, and the trunk goes on (Hu et al. 2024, "MiniCPM", arXiv 2404.06395, sec.
4.3; Hägele et al. 2024, arXiv 2405.18392). So one long training serves several token counts. What
the last count costs is the trunk up to its decay: it is the training that `schedule = "wsd"` makes.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import keras
import numpy as np
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.distributed.cpu_parallelism import replica_parallelism, split
from components.train.gradient_noise import GradientNoise, GradientNoiseMeter
from components.train.optimizer import LearningRate, make_optimizer
from components.train.step import make_train_step
from tokenmill.errors import TokenmillError
from tokenmill.model.backbone import Backbone
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import Batch, PackedSplit
from tokenmill.rows.schedule import RowOrder

Result = TypeVar("Result")


@dataclass(frozen=True)
class ProxyPoint(Generic[Result]):
    """A decayed model of a trunk.

    Attributes:
        steps: Steps from random weights to the end of the decay.
        slots: Positions that these steps computed, padding included.
        loss_tokens: Loss tokens that these steps read.
        loss: Mean loss of the last steps' own rows, before each update: nats a loss token.
        result: What the evaluation returned.
    """

    steps: int
    slots: int
    loss_tokens: int
    loss: float
    result: Result


@dataclass(frozen=True)
class ProxyCurve(Generic[Result]):
    """A trunk with its branches.

    Attributes:
        points: One for each count that was wanted, ascending.
        computed_slots: Positions that were computed in all, those of all branches included.
        seconds: Wall time of all of it, compilation and evaluation included.
        step_seconds: Mean wall time of a step that did not compile; None without one.
        noise: Of the trunk's gradients behind the warm-up; None where it cannot be told.
    """

    points: list[ProxyPoint[Result]]
    computed_slots: int
    seconds: float
    step_seconds: float | None
    noise: GradientNoise | None


class _AssignedRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate that was assigned last, so that one compiled step serves all schedules."""

    def __init__(self) -> None:
        self.rate = tf.Variable(0.0, trainable=False, dtype=tf.float32)

    def __call__(self, step: Any) -> Any:
        """Return the rate, a float32 scalar; the step does not matter."""
        del step
        return self.rate.value()


class ProxyTrainer:
    """Trains models of one shape with one batch size, again and again; compiles once.

    Args:
        shape: The model; of a decoder.
        config: The section [train]; schedule, epochs and max_steps are not used, as `train` says
            how many steps there are.
        rows: Rows to train on.
    """

    def __init__(self, shape: ModelShape, config: TrainConfig, rows: PackedSplit):
        self.shape, self.rows = shape, rows
        self.config = config.model_copy(update={"schedule": "wsd", "strategy": "default"})
        self.strategy = tf.distribute.get_strategy()
        self.model = build_model(shape, 0, config.precision, config.dropout, config.rematerialize)
        self._rate = _AssignedRate()
        slots = config.global_batch_size * shape.sequence_length // config.accumulation_steps
        self._optimizer = make_optimizer(
            self.config, 1, slots, self._rate, balance_step=shape.balance_step
        )
        self._optimizer.build(self.model.trainable_variables)
        self._step = make_train_step(
            self.strategy,
            self.model,
            self._optimizer,
            clip_norm=config.clip_norm,
            jit_compile=config.jit_compile,
            seed=0,
            z_loss=config.z_loss,
            accumulation_steps=config.accumulation_steps,
            measure_noise=True,
        )
        self._first_optimizer = [np.array(v.numpy()) for v in self._optimizer.variables]
        self._compiled = False

    def train(
        self,
        steps: Sequence[int],
        seed: int,
        evaluate: Callable[[Backbone], Result],
        learning_rate: float | None = None,
        source_weights: Mapping[str, float] | None = None,
    ) -> ProxyCurve[Result]:
        """Train one trunk from random weights and a branch for each count of steps.

        Args:
            steps: Counts of steps of the decayed models, each at least 2.
            seed: Of weights and data order.
            evaluate: Called with each decayed model.
            learning_rate: The peak; None takes the configuration's.
            source_weights: Share of the rows of each source, of rows that were packed by source;
                None takes the manifest's.

        Raises:
            TokenmillError: The loss is not finite, or the rows do not suffice under
                pack.max_repetitions.
        """
        started = time.perf_counter()
        counts = sorted(set(steps))
        if not counts or counts[0] < 2:
            raise TokenmillError(
                f"proxy runs of {list(steps)} steps: expected 2 steps or more.",
                "Give a larger budget or more text.",
            )
        run = _Run(self, counts, seed, learning_rate, source_weights)
        points = [run.branch(count, evaluate) for count in counts]
        return ProxyCurve(
            points,
            run.computed_slots,
            time.perf_counter() - started,
            run.step_seconds,
            run.noise.result(),
        )

    def _reset(self, seed: int) -> None:
        """Give the model random weights of a seed, and the optimizer its first state."""
        fresh = build_model(self.shape, seed, self.config.precision, self.config.dropout)
        for variable, first in zip(self.model.variables, fresh.variables, strict=True):
            variable.assign(first)
        for variable, value in zip(self._optimizer.variables, self._first_optimizer, strict=True):
            variable.assign(value)

    @property
    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self._optimizer.variables]


class _Run:
    """A trunk: where it is, and what it has read."""

    def __init__(
        self,
        trainer: ProxyTrainer,
        counts: list[int],
        seed: int,
        learning_rate: float | None,
        source_weights: Mapping[str, float] | None,
    ):
        self._trainer, self._counts = trainer, counts
        rows = trainer.rows
        if source_weights is not None:
            rows = _reweighted(rows, source_weights)
        config = trainer.config
        peak = config.learning_rate if learning_rate is None else learning_rate
        self._config = config.model_copy(update={"learning_rate": peak})
        self._warmup = config.suited_warmup_steps(counts[-1], counts[0])
        self._rows = rows
        self._order = RowOrder(rows, config.global_batch_size, seed)
        self._at = self._parts = 0
        self._loss_tokens = 0
        self.computed_slots = 0
        self.noise = GradientNoiseMeter()
        self._timed_steps, self._timed_seconds = 0, 0.0
        trainer._reset(seed)

    @property
    def step_seconds(self) -> float | None:
        return self._timed_seconds / self._timed_steps if self._timed_steps else None

    def branch(self, count: int, evaluate: Callable[[Backbone], Result]) -> ProxyPoint[Result]:
        """Train the trunk up to where a branch of this count decays, then the branch."""
        rates = self._rates(count)
        decay_starts = int(np.flatnonzero(rates == rates.max())[-1]) + 1
        while self._at < decay_starts:
            weight, _ = self._train_step(self._at, float(rates[self._at]), on_trunk=True)
            self._loss_tokens += weight
            self._at += 1
        is_last = count == self._counts[-1]
        kept = [] if is_last else [np.array(v.numpy()) for v in self._trainer._variables]
        loss_tokens, tail = self._loss_tokens, []
        for step in range(self._at, count):
            weight, nll = self._train_step(step, float(rates[step]), on_trunk=False)
            loss_tokens += weight
            tail.append((nll, weight))
        total = sum(weight for _, weight in tail)
        point = ProxyPoint(
            steps=count,
            slots=count * self._slots_per_step,
            loss_tokens=loss_tokens,
            loss=sum(nll for nll, _ in tail) / max(total, 1),
            result=evaluate(self._trainer.model),
        )
        for variable, value in zip(self._trainer._variables if kept else [], kept, strict=True):
            variable.assign(value)
        return point

    @property
    def _slots_per_step(self) -> int:
        return self._config.global_batch_size * self._trainer.shape.sequence_length

    def _rates(self, count: int) -> np.ndarray:
        """Return the learning rate of each step of a branch, float32 [count]."""
        schedule = LearningRate(self._config, count)
        schedule.warmup_steps = self._warmup
        return np.array(schedule(np.arange(count)))

    def _train_step(self, step: int, rate: float, on_trunk: bool) -> tuple[int, float]:
        """Train one step; return its loss tokens and their summed loss in nats."""
        trainer, config = self._trainer, self._config
        numbers, _ = self._order.rows_of_step(step)
        batch = Batch(*(tf.constant(x) for x in self._rows.read(numbers)))
        trainer._rate.rate.assign(rate)
        started = time.perf_counter()
        result = trainer._step(batch, tf.constant(0.0), False)
        nll, weight, norm = float(result.nll), float(result.weight), float(result.norm)
        if trainer._compiled:
            self._timed_seconds += time.perf_counter() - started
            self._timed_steps += 1
        trainer._compiled = True
        if bool(result.refused) or not math.isfinite(nll):
            raise TokenmillError(
                f"a proxy run diverged: loss {nll / max(weight, 1.0)}, gradient norm {norm} at "
                f"step {step + 1} with learning rate {rate:g}.",
                "Lower train.learning_rate or raise train.warmup_fraction.",
            )
        self.computed_slots += self._slots_per_step
        square = float(result.part_square)
        if on_trunk and square >= 0 and step >= self._warmup:
            if not self._parts:
                most = replica_parallelism(trainer.strategy)
                self._parts = len(split(batch, most, config.accumulation_steps))
            self.noise.add(norm * norm, square, weight, self._parts)
        return int(weight), nll


def _reweighted(rows: PackedSplit, source_weights: Mapping[str, float]) -> PackedSplit:
    """Return a split that is read by other weights of its sources.

    Raises:
        TokenmillError: The weights are not those of the sources that the rows were packed by.
    """
    sources = sorted(
        {source for shard in rows.manifest.shards for source, _ in shard.rows_by_source}
    )
    if missing := sorted(set(sources) ^ set(source_weights)):
        raise TokenmillError(
            f"source weights of a proxy run: {missing[0]!r} is not both weighed and among the "
            f"sources that rows were packed by, {', '.join(sources) or 'none'}.",
            "Give each source of the rows a weight; 0 leaves it out.",
        )
    other = copy.copy(rows)
    other.manifest = rows.manifest.model_copy(update={"source_weights": dict(source_weights)})
    return other
