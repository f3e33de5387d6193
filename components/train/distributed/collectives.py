"""What replicas send each other in a step, and a count of it.

Shapes are static: what a step hands over is known once it is traced.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def known_replica_number() -> int | None:
    """Return the number of the replica whose operations are being made.

    None where replicas share one program, as those of a TPU do.
    """
    context = tf.distribute.get_replica_context()
    number = tf.get_static_value(context.replica_id_in_sync_group)
    return None if number is None else int(number)


def replica_number() -> int:
    """Return the number of the replica whose operations are being made, where each has its own."""
    number = known_replica_number()
    assert number is not None, "replicas share one program"
    return number


class Collectives:
    """Sums and gathers over the replicas, called in a replica's context.

    It counts what the operations of one step hand over, when they are made.
    """

    def __init__(self) -> None:
        self._handed: dict[int, dict[str, int]] = {}

    def start(self) -> None:
        """Begin to count anew: a step is being traced."""
        self._handed.clear()

    def all_reduce_sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return each tensor summed over the replicas."""
        for tensor in tensors:
            self._count("all_reduce", tensor)
        context = tf.distribute.get_replica_context()
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))

    def all_gather(self, part: tf.Tensor) -> tf.Tensor:
        """Return the vectors of all replicas, equally long, end to end."""
        self._count("all_gather", part)
        context = tf.distribute.get_replica_context()
        if part.dtype != tf.bfloat16:
            return context.all_gather(part, axis=0)
        # Gathering moves bits, and knows no bfloat16 (TensorFlow 2.16 on a CPU).
        return tf.bitcast(context.all_gather(tf.bitcast(part, tf.float16), axis=0), tf.bfloat16)

    def all_to_all(self, parts: tf.Tensor) -> tf.Tensor:
        """Send each replica its part, parts[i] to the i-th, and return what all sent to this one.

        TensorFlow has the operation for CPUs and NCCL, but no public function and no gradient of
        it. It is its own transpose. Its shapes may be known only when it runs: it is not counted.
        """
        extended = tf.distribute.get_replica_context().strategy.extended
        # The keys by which the operations of several processes find each other, and their order.
        launchers = extended._cross_device_ops._launchers
        launcher = launchers[replica_number() % len(launchers)]

        def send(x: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.CollectiveAllToAllV2(
                input=x,
                group_size=launcher._group_size,
                group_key=launcher._group_key,
                instance_key=launcher._next_instance_key(),
                ordering_token=[launcher._get_ordering_token()],
            )

        @tf.custom_gradient
        def exchange(x: tf.Tensor) -> Any:
            return send(x), send

        return exchange(parts)

    @property
    def bytes_per_step(self) -> dict[str, int]:
        """Bytes that one replica hands over in a step, by collective; empty before a trace."""
        return dict(self._handed[min(self._handed)]) if self._handed else {}

    def _count(self, kind: str, tensor: tf.Tensor) -> None:
        # One program that replicas share counts as the first's.
        handed = self._handed.setdefault(known_replica_number() or 0, {})
        handed[kind] = handed.get(kind, 0) + tensor.shape.num_elements() * tensor.dtype.size
