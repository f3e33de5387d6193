"""What a run says about itself while it runs: TensorBoard, metrics.jsonl, the line on the screen.

Scalars are derived from what the step returns anyway. Distributions and attention maps cost time
and come seldom.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components.train.execution import Execution
from components.train.state import TrainingRecord
from components.train.telemetry.metrics_log import MetricsLog
from tokenmill import progress
from tokenmill.contracts.training import ExpertLoad, ExpertLoads, Phase
from tokenmill.contracts.training_limits import TrainingLimits
from tokenmill.cost.flops import model_flops_utilization
from tokenmill.cost.scaling import repetition_discounted_tokens
from tokenmill.number_format import count, usd

TENSORBOARD_NAME = "tensorboard"
# A histogram of more values than this is drawn from an even sample of them.
_HISTOGRAM_VALUES = 65_536
# What the line on the screen has beside the loss.
_SHOWN: dict[str, Callable[[float], str]] = {
    "tokens_per_second": lambda rate: f"{count(rate)} tokens/s",
    "cost_usd": usd,
    "mfu": lambda share: f"MFU {share:.0%}",
}


class Telemetry:
    """Writes one training's telemetry; without a directory it only moves the screen's bar.

    Args:
        directory: The training directory; None writes nothing.
        execution: Intervals.
        unique_targets: Loss tokens of one pass over the training split, for effective tokens.
        target_share: Targets of one pass by these loss tokens.
        limits: Price and peak; None if they are not known.
        flops_per_token: FLOPs of training on a token; None if not known.
    """

    def __init__(
        self,
        directory: str | None,
        execution: Execution,
        unique_targets: float,
        target_share: float = 1.0,
        limits: TrainingLimits | None = None,
        flops_per_token: float | None = None,
    ):
        self._execution, self._limits = execution, limits
        self._flops_per_token, self._unique_targets = flops_per_token, unique_targets
        self._targets_a_pass = unique_targets * target_share
        self.log: MetricsLog | None = None
        self._directory = None
        if directory is not None:
            self.log = MetricsLog(directory)
            self._directory = os.path.join(directory, TENSORBOARD_NAME)
        self._writer: Any = None
        self._since: tuple[int, float, float] | None = None
        self._profiling = False
        self._detail = ""

    @property
    def writer(self) -> Any:
        """TensorBoard's, opened when the first thing is written; None without a directory."""
        if self._writer is None and self._directory is not None:
            self._writer = tf.summary.create_file_writer(self._directory)
        return self._writer

    def step(
        self,
        record: TrainingRecord,
        loss: float,
        norm: float,
        learning_rate: Callable[[], float],
    ) -> None:
        """Write the scalars of the record's last step.

        Args:
            record: Totals after the step.
            loss: Mean loss of the step, nats.
            norm: Global norm of its mean gradient before clipping.
            learning_rate: Gives what it was applied with.
        """
        step, steps = record.step, record.plan.steps
        if step % self._execution.log_steps == 0 or step in (1, steps):
            scalars = self._rates(record) | self._worth(record, loss)
            self._detail = "".join(
                f", {show(scalars[name])}" for name, show in _SHOWN.items() if name in scalars
            )
            if self.log is not None:
                scalars |= {"gradient_norm": norm, "learning_rate": learning_rate(), "loss": loss}
                self._write(step, sum(record.seconds.values()), scalars)
        held_out = record.evaluations[-1][1] if record.evaluations else None
        if held_out is None and record.eval_before is not None:
            held_out = record.eval_before.loss
        known = "" if held_out is None else f", held-out {held_out:.3f}"
        progress.report(step, steps, f"loss {loss:.3f}{known}{self._detail}")

    def _write(self, step: int, seconds: float, scalars: dict[str, float]) -> None:
        assert self.log is not None
        self.log.append({"step": step, "seconds": seconds, **scalars})
        with self.writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def _rates(self, record: TrainingRecord) -> dict[str, float]:
        """Return tokens/s, MFU and the share of waiting for input since the last call."""
        waited, steady = record.seconds.get(Phase.INPUT, 0.0), record.steady_seconds
        before, self._since = self._since, (record.trained_slots, steady, waited)
        if before is None or steady <= before[1] or record.trained_slots <= before[0]:
            return {}
        seconds = steady - before[1]
        rate = (record.trained_slots - before[0]) / seconds
        rates = {"tokens_per_second": rate, "input_wait_share": (waited - before[2]) / seconds}
        peak = self._limits and self._limits.peak_flops_per_second
        if self._flops_per_token and peak:
            rates["mfu"] = model_flops_utilization(
                tokens_per_second=rate,
                flops_per_token=self._flops_per_token,
                chips=1,  # the peak is of all of them
                peak_flops_per_second=peak,
            )
        return rates

    def _worth(self, record: TrainingRecord, loss: float) -> dict[str, float]:
        """Return effective tokens, and money where there is a price."""
        worth = {
            "trained_loss_tokens": float(record.trained_loss_tokens),
            "effective_tokens": repetition_discounted_tokens(
                self._unique_targets, record.trained_loss_tokens / self._targets_a_pass
            ),
        }
        if self._limits is not None:
            cost = sum(record.seconds.values()) * self._limits.usd_per_second
            worth["cost_usd"] = cost
            fallen = record.loss_curve[0][1] - loss if record.loss_curve else 0.0
            if cost > 0:
                worth["loss_reduction_per_usd"] = fallen / cost
        return worth

    def evaluation(
        self, step: int, seconds: float, loss: float, accuracy: float | None = None
    ) -> None:
        """Write an eval loss, nats a loss token, and a classifier's accuracy, 0 to 1."""
        scalars = {"eval_loss": loss}
        if accuracy is not None:
            scalars["eval_accuracy"] = accuracy
        self.event("evaluation", step, seconds, **scalars)
        if self.writer is not None:
            with self.writer.as_default(step=step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)

    def distributions(
        self, step: int, weights: Sequence[Any], gradients: Sequence[tf.Tensor]
    ) -> None:
        """Write histograms of gradients, and norms of weights and gradients, one a weight."""
        with self.writer.as_default(step=step):
            for weight, gradient in zip(weights, gradients, strict=True):
                values = np.asarray(gradient, np.float32).ravel()
                every = -(-len(values) // _HISTOGRAM_VALUES)
                tf.summary.histogram(f"gradients/{weight.path}", values[::every])
                tf.summary.scalar(f"gradient_norms/{weight.path}", np.linalg.norm(values))
                tf.summary.scalar(f"weight_norms/{weight.path}", np.linalg.norm(weight.numpy()))

    def attention(self, step: int, draw: Callable[[], tuple[dict[str, float], np.ndarray]]) -> None:
        """Write the entropy of each head as a scalar, and an image of the maps."""
        entropies, image = draw()
        with self.writer.as_default(step=step):
            for name, value in entropies.items():
                tf.summary.scalar(f"attention_entropy/{name}", value)
            tf.summary.image("attention", image[None])

    def expert_load(self, step: int, seconds: float, layers: Sequence[ExpertLoad]) -> None:
        """Write how busy the experts of each layer are (expert_load.py)."""
        if self.log is None:
            return
        line = ExpertLoads(event="expert_load", step=step, seconds=seconds, layers=list(layers))
        self.log.append(line.to_json())
        with self.writer.as_default(step=step):
            for of in layers:
                prefix = f"experts/layer{of.layer}"
                tf.summary.scalar(f"{prefix}/max_load", of.max_load)
                tf.summary.scalar(f"{prefix}/dead_experts", len(of.dead_experts))
                tf.summary.scalar(f"{prefix}/router_entropy_nats", of.router_entropy_nats)

    def event(self, name: str, step: int, seconds: float, **details: Any) -> None:
        """Write a line of metrics.jsonl that is no step: a resume, a rewind, a checkpoint."""
        if self.log is not None:
            self.log.append({"event": name, "step": step, "seconds": seconds, **details})

    def profile(self, next_step: int) -> None:
        """Start or end the profile of `profile_steps`; called before each step, after the last."""
        if self._execution.profile_steps is None or self._directory is None:
            return
        first, last = self._execution.profile_steps
        if not self._profiling and first <= next_step <= last:
            tf.profiler.experimental.start(self._directory)
            self._profiling = True
        elif self._profiling and next_step > last:
            self._end_profile()

    def _end_profile(self) -> None:
        tf.profiler.experimental.stop()
        self._profiling = False

    def flush(self) -> None:
        """Write what is still in memory to the files."""
        if self.log is not None:
            self.log.flush()
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """End a profile and close the files."""
        if self._profiling:
            self._end_profile()
        self.flush()
        if self._writer is not None:
            self._writer.close()
