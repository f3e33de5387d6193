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
from tokenmill.model.shape import SELECTION_BIAS

# Names of weights that decay leaves alone: biases of layers and heads, norms.
_NOT_DECAYED = ["bias", "gamma", "beta", "scale"]
# A mean loss starts at this scale (Micikevicius et al. 2018 use 8 to 32,768).
_INITIAL_LOSS_SCALE = 2.0**15


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then the schedule of [train] down to the final rate at the last step.

    The first step has 1 / warmup of the peak: a rate of 0 would waste it. The last step has the
    final rate, also where there are too few steps for a warm-up or a form.

    Args:
        config: Peak and form.
        steps: Steps of the whole run.
    """

    def __init__(self, config: TrainConfig, steps: int):
        self.config, self.steps = config, steps
        self.warmup_steps = config.warmup_steps(steps)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step (from 0), a float32 scalar."""
        config, step = self.config, ops.cast(step, "float32")
        first = 1.0 / self.warmup_steps
        warmup = first + (1.0 - first) * step / self.warmup_steps
        last = self.steps - 1
        decay_steps = max(1, last - self.warmup_steps)
        if config.schedule == "wsd":
            decay_steps = min(decay_steps, max(1, round(config.decay_fraction * self.steps)))
        done = ops.clip((step - (last - decay_steps)) / decay_steps, 0.0, 1.0)
        cosine = config.schedule == "cosine"
        left = 0.5 * (1.0 + ops.cos(done * math.pi)) if cosine else 1.0 - done
        final = config.final_learning_rate_fraction
        after = final + (1.0 - final) * left
        in_warmup = ops.logical_and(step < self.warmup_steps, step < last)
        return config.learning_rate * ops.where(in_warmup, warmup, after)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"config": self.config, "steps": self.steps}


class AdamW(keras.optimizers.AdamW):
    """AdamW that computes in float32 whatever the type of a weight is, moments included.

    Keras computes in the weight's type. In bfloat16 a beta_2 of 0.999 is 1, so that nothing is
    ever trained, and a second moment stands still once its updates are under 1/256 of it.

    It takes gradients that are those of the global batch on every replica already: Keras would add
    them up over the replicas once more, which takes as long as the first time.
    """

    balance_step = 0.0
    """What a step adds to or takes from a bias that balances experts."""

    def add_variable(self, shape, initializer="zeros", dtype=None, **options):
        """Add a variable of the optimizer as Keras does, never narrower than float32."""
        wide = "float32" if dtype == "bfloat16" else dtype
        return super().add_variable(shape, initializer, wide, **options)

    def update_step(self, gradient, variable, learning_rate):
        """Update one weight; of a 16-bit one, decay and step are rounded once, together.

        A bias that balances experts takes steps of one size, against the sign of what its expert
        had more than the mean (Wang et al. 2024).
        """
        # What is given is TensorFlow's variable, whose name is a path; a second replica's has a
        # further part.
        if balances_experts(variable.name.split(":")[0]):
            self.assign_sub(variable, self.balance_step * tf.sign(gradient))
            return
        if variable.dtype == tf.float32:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        rate, gradient = tf.cast(learning_rate, tf.float32), tf.cast(gradient, tf.float32)
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (tf.square(gradient) - square) * (1 - self.beta_2))
        step = tf.cast(self.iterations + 1, tf.float32)
        alpha = rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        weight = tf.cast(variable, tf.float32)
        decay = self.weight_decay if self._use_weight_decay(variable) else 0.0
        moved = weight * (1 - rate * decay) - mean * alpha / (tf.sqrt(square) + self.epsilon)
        noise = rounding_noise(variable.shape, index, self.iterations)
        self.assign(variable, round_stochastically(moved, noise))

    def _apply_weight_decay(self, variables: Any) -> None:
        super()._apply_weight_decay([v for v in variables if v.dtype == "float32"])

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


def balances_experts(path: str) -> bool:
    """Return whether the weight of this path is a bias that balances experts."""
    return SELECTION_BIAS in path.split("/")


def rounding_noise(shape: Any, index: int, iterations: Any) -> tf.Tensor:
    """Return the chance with which a weight's new value is rounded: uint32 of its shape.

    Args:
        shape: Of the weight.
        index: Its place among the trained weights.
        iterations: Steps done; the same bits in the same step, on every device.
    """
    seed = tf.stack([tf.constant(index, tf.int32), tf.cast(iterations, tf.int32)])
    return tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")


def round_stochastically(values: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Round float32 to bfloat16, up or down by chance, so that it is right on the average.

    Rounded to the nearest, a weight would not move at all by steps under 1/512 of it (Gupta et al.
    2015, "Deep Learning with Limited Numerical Precision", sec. 3).

    Args:
        values: Finite float32.
        noise: uint32 of the same shape, uniform.
    """
    bits = tf.bitcast(values, tf.uint32)
    # bfloat16 is the upper half of float32: chance carries into it as often as the lower is large.
    upper = tf.bitwise.right_shift(bits + tf.bitwise.right_shift(noise, 16), 16)
    return tf.bitcast(tf.cast(upper, tf.uint16), tf.bfloat16)


def make_optimizer(
    config: TrainConfig,
    steps: int,
    targets_per_replica: int = 1,
    schedule: keras.optimizers.schedules.LearningRateSchedule | None = None,
    kind: type[AdamW] = AdamW,
    balance_step: float = 0.0,
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
        schedule: Another than the configuration's.
        kind: Another AdamW, such as one whose moments are split (distributed/zero.py).
        balance_step: What a step adds to or takes from a bias that balances experts.
    """
    optimizer = kind(
        schedule or LearningRate(config, steps),
        weight_decay=config.weight_decay,
        beta_2=config.beta_2,
        name="adamw",
    )
    optimizer.balance_step = balance_step
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    if config.precision == "mixed_float16":
        # A power of two, so that scaling rounds nothing.
        scale = 2.0 ** max(0, round(math.log2(_INITIAL_LOSS_SCALE / targets_per_replica)))
        # Named, as Keras would number it within a process, and checkpoints name its variables.
        return keras.optimizers.LossScaleOptimizer(
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
    mean = mean_of_sums(optimizer, gradient_sums, weight)
    norm = tf.linalg.global_norm(mean)
    return clip_to_norm(optimizer, mean, norm, clip_norm), norm


def mean_of_sums(
    optimizer: keras.optimizers.Optimizer, gradient_sums: list[tf.Tensor], weight: tf.Tensor
) -> list[tf.Tensor]:
    """Return the gradients of the mean loss: `clip_mean_gradients`' first step."""
    divisor = tf.maximum(weight, 1.0) * scale_loss(optimizer, tf.ones([]))
    return [tf.cast(g, tf.float32) / divisor for g in gradient_sums]


def norm_of_halves(halves: list[tf.Tensor]) -> tf.Tensor:
    """Return the global norm by tf.nn.l2_loss of each tensor, as tf.linalg.global_norm does."""
    return tf.sqrt(2.0 * tf.reduce_sum(tf.stack(halves)))


def clip_to_norm(
    optimizer: keras.optimizers.Optimizer,
    mean: list[tf.Tensor],
    norm: tf.Tensor,
    clip_norm: float,
) -> list[tf.Tensor]:
    """Return some of the mean gradients for `apply_gradients`, clipped by the norm of all."""
    scale = scale_loss(optimizer, tf.ones([]))
    clipped, _ = tf.clip_by_global_norm(mean, clip_norm, use_norm=norm)
    return [g * scale for g in clipped]
