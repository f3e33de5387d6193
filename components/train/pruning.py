"""Magnitude pruning: the smallest weights of each matrix become 0 in the last third of training.

The share of zeros rises by the cubic schedule of Zhu and Gupta 2017 ("To prune, or not to prune",
arXiv 1710.01878, eq. 1) and stays at its target for the last sixth, in which the weights that are
left make up for the others. A weight that is 0 is the mask: after each update what was 0 before is
0 again, so that a checkpoint of the weights holds the masks, and nothing else has to.
"""

import bisect
import math
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from components.train.config import PrunePattern, TrainConfig
from tokenmill.contracts.training import Losses, Pruning

# Each ranks all weights of a matrix, so that there are not as many as steps.
_MOST_MASK_UPDATES = 16
# Of 2:4: two zeros among four weights that meet neighboring inputs (Mishra et al. 2021,
# "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378, sec. 3.1).
_GROUP, _ZEROS_OF_GROUP = 4, 2
_BLOCK_BYTES = 2**20
_PRUNED = re.compile(r"/layer\d+/(?!.*(router|shared_gate)).*kernel$")


@dataclass(frozen=True)
class PruningSchedule:
    """When masks grow, and to which share.

    Attributes:
        target: Share of zeros at the end, a fraction.
        first_step: Steps after which the weights are dense still; masks grow from there.
        last_step: Steps after which the target is reached.
    """

    target: float
    first_step: int
    last_step: int

    @classmethod
    def of(cls, sparsity: float, steps: int) -> "PruningSchedule | None":
        """Return the schedule of a training of so many steps; None where nothing is pruned."""
        if not sparsity:
            return None
        first = 2 * steps // 3
        return cls(sparsity, first, max(first + 1, 5 * steps // 6))

    def sparsity(self, step: int) -> float:
        """Return the share of zeros after so many steps, a fraction."""
        done = (step - self.first_step) / (self.last_step - self.first_step)
        return self.target * (1.0 - (1.0 - min(1.0, max(0.0, done))) ** 3)

    def mask_updates(self) -> list[int]:
        """Return after which steps masks grow; the last of them is `last_step`."""
        length = self.last_step - self.first_step
        count = min(_MOST_MASK_UPDATES, length)
        return [self.first_step + -(-length * (i + 1) // count) for i in range(count)]

    def zeros_by_update(self, size: int) -> list[int]:
        """Return the zeros of a matrix of this many weights: before any, and after each update."""
        return [0, *(round(self.sparsity(step) * size) for step in self.mask_updates())]

    def lacks_zeros(self, step: int, name: str, values: np.ndarray) -> bool:
        """Return whether a weight lacks zeros that it should have after so many steps.

        Args:
            step: Steps done.
            name: Of the weight, a path.
            values: The weight.
        """
        if not _is_pruned(name, values.shape):
            return False
        matrices = np.reshape(values == 0, [-1, math.prod(values.shape[-2:])])
        place = bisect.bisect_right(self.mask_updates(), step)
        due = self.zeros_by_update(matrices.shape[1])[place]
        return bool(np.min(np.sum(matrices, axis=1)) < due)


def _is_pruned(path: str, shape: Sequence[int]) -> bool:
    return len(shape) > 1 and _PRUNED.search(path) is not None


def pruned_variables(variables: Sequence[Any]) -> list[Any]:
    """Return those that are pruned: the matrices of attention and MLP in the layers.

    Experts of a layer are one tensor [experts, inputs, outputs], a matrix for each expert.
    Embeddings, the output projection and heads stay dense (every token or class has a row of its
    own there), as do norms, biases, routers and gates of shared experts, which are small.
    """
    return [v for v in variables if _is_pruned(v.path, v.shape)]


def prune_smallest(values: tf.Tensor, count: tf.Tensor, pattern: PrunePattern) -> tf.Tensor:
    """Return each matrix with its `count` smallest weights set to 0; of equals the first.

    Args:
        values: One matrix [inputs, outputs], or several [.., inputs, outputs]: each is ranked by
            itself, as an expert that sees few tokens may have smaller weights than another.
        count: int32; those that are 0 already are among them.
        pattern: With 2:4 only the two smallest of four neighboring inputs of an output can go.
    """
    scores = tf.abs(tf.cast(values, tf.float32))
    if pattern == "2:4":
        shape = [-1, values.shape[-2] // _GROUP, _GROUP, values.shape[-1]]
        order = tf.argsort(tf.reshape(scores, shape), axis=2, stable=True)
        ranks = tf.reshape(tf.argsort(order, axis=2, stable=True), values.shape)
        scores = tf.where(ranks < _ZEROS_OF_GROUP, scores, np.inf)
    size = math.prod(values.shape[-2:])
    smallest = tf.argsort(tf.reshape(scores, [-1, size]), stable=True)[:, :count]
    firsts = tf.range(0, math.prod(values.shape), size, tf.int64)
    places = tf.reshape(firsts[:, None] + tf.cast(smallest, tf.int64), [-1, 1])
    zeros = tf.zeros(tf.shape(places)[:1], values.dtype)
    flat = tf.tensor_scatter_nd_update(tf.reshape(values, [-1]), places, zeros)
    return tf.reshape(flat, values.shape)


class Pruner:
    """Keeps zeros at 0 over an update, and adds to them when the schedule says so.

    Args:
        strategy: Where the replicas are.
        variables: All that are trained.
        schedule: When.
        pattern: Which weights of a matrix may go.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        variables: Sequence[Any],
        schedule: PruningSchedule,
        pattern: PrunePattern,
    ):
        self.schedule, self._strategy, self._pattern = schedule, strategy, pattern
        self._variables = pruned_variables(variables)

    def kept(self, step: tf.Tensor) -> list[Any]:
        """Return which weights are not 0, bool, before an update; under the strategy's scope.

        Empty tensors in the dense steps, which nobody looks at.

        Args:
            step: How many steps are done with this update, an int32 scalar: the training's and not
                the optimizer's, which counts none whose float16 gradients overflow.
        """

        def of_replica():
            return tf.cond(
                step > self.schedule.first_step,
                lambda: [tf.not_equal(tf.convert_to_tensor(v), 0) for v in self._variables],
                lambda: [tf.zeros([0] * len(v.shape), tf.bool) for v in self._variables],
            )

        return list(self._strategy.run(of_replica))

    def prune(self, kept: Sequence[Any], step: tf.Tensor) -> None:
        """Set what was 0 before an update to 0 again, and more where masks grow now.

        Args:
            kept: What `kept` returned before the update.
            step: As for `kept`.
        """
        tf.cond(
            step > self.schedule.first_step,
            lambda: self._prune(kept, step),
            lambda: tf.constant(False),
        )

    def _prune(self, kept: Sequence[Any], step: tf.Tensor) -> tf.Tensor:
        steps = self.schedule.mask_updates()
        grows = tf.reduce_any(step == tf.constant(steps))
        # A table, not the formula: how many are pruned must not depend on a device's rounding.
        place = tf.searchsorted(steps, step[None], side="right")[0]
        for variable, mask in zip(self._variables, kept, strict=True):
            counts = tf.constant(self.schedule.zeros_by_update(math.prod(variable.shape[-2:])))

            def update(weight, mask, counts=counts):
                mask = tf.ensure_shape(mask, weight.shape)
                values = tf.where(mask, weight, tf.zeros([], weight.dtype))
                weight.assign(
                    tf.cond(
                        grows,
                        lambda: prune_smallest(values, counts[place], self._pattern),
                        lambda: values,
                    )
                )

            self._strategy.extended.update(variable.value, update, args=(mask,), group=False)
        return tf.constant(True)


def describe_pruning(
    config: TrainConfig,
    schedule: PruningSchedule,
    variables: Sequence[Any],
    before: Losses | None,
    model_directory: str | None,
) -> Pruning:
    """Count the zeros that a training has ended with, and what they save on disk.

    Args:
        config: The section [train].
        schedule: When weights were pruned.
        variables: All that were trained.
        before: Eval loss of the dense weights at the schedule's first step.
        model_directory: The SavedModel; None where there is none.
    """
    pruned = pruned_variables(variables)
    zeros = [int(np.sum(np.array(v.numpy()) == 0)) for v in pruned]
    sizes: dict[str, int] = {}
    if model_directory is not None:
        sizes = _sizes(os.path.join(model_directory, "variables"))
    return Pruning(
        target=config.prune_sparsity,
        pattern=config.prune_pattern,
        params=sum(int(np.prod(v.shape)) for v in pruned),
        zeros=sum(zeros),
        first_step=schedule.first_step,
        last_step=schedule.last_step,
        eval_before=before,
        **sizes,
    )


def _sizes(directory: str) -> dict[str, int]:
    """Return the bytes of a directory's files as they are, and deflated as gzip -1 does."""
    whole = packed = 0
    for name in sorted(tf.io.gfile.listdir(directory)):
        deflate = zlib.compressobj(1)
        with tf.io.gfile.GFile(os.path.join(directory, name), "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                whole += len(block)
                packed += len(deflate.compress(block))
        packed += len(deflate.flush())
    return {"weight_bytes": whole, "compressed_bytes": packed}
