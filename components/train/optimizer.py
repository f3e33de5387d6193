"""AdamW, its learning-rate schedule, clipping of the mean gradient, and loss scaling.

Decay is decoupled (Loshchilov and Hutter 2019) and pulls on matrices only: kernels and embedding
tables, as in GPT-2 and BERT training; biases and norm scales have no reason to go to 0.
"""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from components.train.config import TrainConfig

# Names of weights that decay leaves alone: biases of layers and heads, norms.
_NOT_DECAYED = ["bias", "gamma", "beta", "scale"]
# A mean loss starts at this scale (Micikevicius et al. 2018 use 8 to 32,768).
_INITIAL_LOSS_SCALE = 2.0**15


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then the schedule of [train] down to the final rate.

    The first step has 1 / warmup of the peak: a rate of 0 would waste it.

    Args:
        config: Peak and form.
        steps: Steps of the whole run.
    """

    def __init__(self, config: TrainConfig, steps: int):
        self.config, self.steps = config, steps
        self.warmup_steps = max(1, round(config.warmup_fraction * steps))

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step (from 0), a float32 scalar."""
        config, step = self.config, ops.cast(step, "float32")
        first = 1.0 / self.warmup_steps
        warmup = first + (1.0 - first) * step / self.warmup_steps
        decay_steps = max(1, self.steps - self.warmup_steps)
        if config.schedule == "wsd":
            decay_steps = min(decay_steps, max(1, round(config.decay_fraction * self.steps)))
        done = ops.clip((step - (self.steps - decay_steps)) / decay_steps, 0.0, 1.0)
        cosine = config.schedule == "cosine"
        left = 0.5 * (1.0 + ops.cos(done * math.pi)) if cosine else 1.0 - done
        final = config.final_learning_rate_fraction
        after = final + (1.0 - final) * left
        return config.learning_rate * ops.where(step < self.warmup_steps, warmup, after)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"config": self.config, "steps": self.steps}


class _AdamW(keras.optimizers.AdamW):
    """AdamW for gradients that are those of the global batch on every replica already.

    Keras would add them up over the replicas once more, which takes as long as the first time.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


def make_optimizer(
    config: TrainConfig,
    steps: int,
    targets_per_replica: int = 1,
) -> keras.optimizers.Optimizer:
    """AdamW; for ``mixed_float16`` inside Keras' dynamic loss scaling.

    It takes gradients that are the same on all replicas, and does not add them up.

    Loss scaling doubles the scale after 2,000 good steps and halves it, skipping the update, when
    a gradient overflows. Its scale and counter are variables of the optimizer, so that whatever
    saves the optimizer saves them.

    Args:
        config: Rates, decay and precision.
        steps: Steps of the whole run.
        targets_per_replica: Targets whose losses are summed on one replica; the first scale is
            that many times smaller than for a mean.
    """
    optimizer: keras.optimizers.Optimizer = _AdamW(
        LearningRate(config, steps),
        weight_decay=config.weight_decay,
        beta_2=config.beta_2,
    )
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    if config.precision == "mixed_float16":
        # A power of two, so that scaling rounds nothing.
        scale = 2.0 ** max(0, round(math.log2(_INITIAL_LOSS_SCALE / targets_per_replica)))
        # Named, as Keras would number it within a process, and checkpoints name its variables.
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=scale, name="loss_scale"
        )
    return optimizer


def scale_loss(optimizer: keras.optimizers.Optimizer, loss: tf.Tensor) -> tf.Tensor:
    """Return the loss to differentiate: multiplied by the loss scale, if the optimizer has one."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.scale_loss(loss)
    return loss


def clip_mean_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradient_sums: list[tf.Tensor],
    weight: tf.Tensor,
    clip_norm: float,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return the gradients of the mean loss, clipped by their global norm.

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
