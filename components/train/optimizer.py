"""AdamW, its learning-rate schedule, clipping of the mean gradient, and loss scaling.

Decay is decoupled (Loshchilov and Hutter 2019) and pulls on matrices only: kernels and embedding
tables, as in GPT-2 and BERT training; biases and norm scales have no reason to go to 0.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

Schedule = Literal["cosine", "linear", "wsd"]

# Names of weights that decay leaves alone: biases of layers and heads, norms.
_NOT_DECAYED = ["bias", "gamma", "beta", "scale"]
# A mean loss starts at this scale (Micikevicius et al. 2018 use 8 to 32,768).
_INITIAL_LOSS_SCALE = 2.0**15


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """What the optimizer needs of the [train] section; units as there.

    Attributes:
        learning_rate: The peak, after warm-up.
        warmup_fraction: Share of the steps in which the rate grows linearly.
        weight_decay: Decay of matrices, multiplied by the learning rate.
        clip_norm: The mean gradient is scaled to at most this global norm.
        schedule: What follows the warm-up: ``cosine`` or ``linear`` decay, or ``wsd``: stable,
            then a linear decay (Hu et al. 2024, "MiniCPM").
        decay_fraction: Share of the steps in which ``wsd`` decays.
        final_learning_rate_fraction: Share of the peak at the last step; 0.1 is that of Hoffmann
            et al. 2022.
        beta_2: Decay of the second moment; 0.95 as in GPT-3.
    """

    learning_rate: float
    warmup_fraction: float
    weight_decay: float
    clip_norm: float
    schedule: Schedule = "cosine"
    decay_fraction: float = 0.1
    final_learning_rate_fraction: float = 0.1
    beta_2: float = 0.95


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then the settings' schedule down to the final rate.

    The first step has 1 / warmup of the peak: a rate of 0 would waste it.

    Args:
        settings: Peak and form.
        steps: Steps of the whole run.
    """

    def __init__(self, settings: OptimizerSettings, steps: int):
        self.settings, self.steps = settings, steps
        self.warmup_steps = max(1, round(settings.warmup_fraction * steps))

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step (from 0), a float32 scalar."""
        settings, step = self.settings, ops.cast(step, "float32")
        first = 1.0 / self.warmup_steps
        warmup = first + (1.0 - first) * step / self.warmup_steps
        decay_steps = max(1, self.steps - self.warmup_steps)
        if settings.schedule == "wsd":
            decay_steps = min(decay_steps, max(1, round(settings.decay_fraction * self.steps)))
        done = ops.clip((step - (self.steps - decay_steps)) / decay_steps, 0.0, 1.0)
        if settings.schedule == "cosine":
            left = 0.5 * (1.0 + ops.cos(done * math.pi))
        else:
            left = 1.0 - done
        final = settings.final_learning_rate_fraction
        after = final + (1.0 - final) * left
        return settings.learning_rate * ops.where(step < self.warmup_steps, warmup, after)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"settings": self.settings, "steps": self.steps}


class _AdamW(keras.optimizers.AdamW):
    """AdamW for gradients that are those of the global batch on every replica already.

    Keras would add them up over the replicas once more, which takes as long as the first time.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


def make_optimizer(
    settings: OptimizerSettings,
    steps: int,
    precision: str = "float32",
    targets_per_replica: int = 1,
) -> keras.optimizers.Optimizer:
    """AdamW; for ``mixed_float16`` inside Keras' dynamic loss scaling.

    It takes gradients that are the same on all replicas, and does not add them up.

    Loss scaling doubles the scale after 2,000 good steps and halves it, skipping the update, when
    a gradient overflows. Its scale and counter are variables of the optimizer, so that whatever
    saves the optimizer saves them.

    Args:
        settings: Rates and decay.
        steps: Steps of the whole run.
        precision: A Keras dtype policy.
        targets_per_replica: Targets whose losses are summed on one replica; the first scale is
            that many times smaller than for a mean.
    """
    optimizer: keras.optimizers.Optimizer = _AdamW(
        LearningRate(settings, steps),
        weight_decay=settings.weight_decay,
        beta_2=settings.beta_2,
    )
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    if precision == "mixed_float16":
        # A power of two, so that scaling rounds nothing.
        scale = 2.0 ** max(0, round(math.log2(_INITIAL_LOSS_SCALE / targets_per_replica)))
        # Named, as Keras would number it within a process, and checkpoints name its variables.
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=scale, name="loss_scale"
        )
    return optimizer


def scale_loss(optimizer: keras.optimizers.Optimizer, loss: tf.Tensor) -> tf.Tensor:
    """The loss to differentiate: multiplied by the loss scale, if the optimizer has one."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.scale_loss(loss)
    return loss


def clip_mean_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradient_sums: list[tf.Tensor],
    weight: tf.Tensor,
    clip_norm: float,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients of the mean loss, clipped by their global norm.

    Args:
        optimizer: Knows the loss scale, which the gradients keep and the norm does not.
        gradient_sums: Gradients of `scale_loss(summed loss)` over the global batch.
        weight: Targets of the global batch, float32 scalar.
        clip_norm: The largest global norm that the mean gradient keeps.

    Returns:
        The gradients for `optimizer.apply_gradients`, and the norm before clipping, float32
        scalar; after an overflow it is not finite, and the gradients are NaN.
    """
    scale = scale_loss(optimizer, tf.ones([]))
    divisor = tf.maximum(weight, 1.0) * scale
    mean = [tf.cast(g, tf.float32) / divisor for g in gradient_sums]
    clipped, norm = tf.clip_by_global_norm(mean, clip_norm)
    return [g * scale for g in clipped], norm
