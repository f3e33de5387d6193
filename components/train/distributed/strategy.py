"""The tf.distribute strategies, and what the workers have to agree on."""

import tensorflow as tf

from components.train.distributed.cluster import place_in_cluster
from components.train.distributed.peers import patient_heartbeats
from tokenmill.errors import TokenmillError
from tokenmill.preemption import killable

# TensorFlow waits in C for the other workers, with Python's GIL. All of them are there by then.
JOIN_SECONDS = 300


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Return the tf.distribute strategy that `train.strategy` names.

    Raises:
        TokenmillError: TF_CONFIG is missing or wrong.
    """
    if name == "mirrored":
        # Without GPUs TensorFlow would take one CPU device even where several were set up.
        gpus = tf.config.list_logical_devices("GPU")
        devices = None if gpus else [d.name for d in tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(devices)
    if name == "multi_worker":
        place_in_cluster()
        with killable(JOIN_SECONDS), patient_heartbeats():
            return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    return tf.distribute.get_strategy()


def has_accelerator() -> bool:
    """Return whether TensorFlow sees a device that is no CPU."""
    return len(tf.config.list_logical_devices()) > len(tf.config.list_logical_devices("CPU"))


class Workers:
    """The processes of a strategy: who writes, and one value for all.

    Args:
        strategy: A strategy; all but multi_worker have a single process.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy, self.replicas = strategy, strategy.num_replicas_in_sync
        resolver = strategy.cluster_resolver
        spec = resolver.cluster_spec().as_dict() if resolver is not None else {}
        self.count = len(spec.get("worker", [])) + len(spec.get("chief", [])) or 1
        self.replicas_each = self.replicas // self.count
        self.index = 0
        if self.count > 1:
            before = len(spec.get("chief", [])) if resolver.task_type == "worker" else 0
            self.index = before + resolver.task_id
        self.is_chief = self.index == 0
        self._sum = tf.function(self._sum_over_replicas)

    def _sum_over_replicas(self, value: tf.Tensor) -> tf.Tensor:
        return self._strategy.reduce(
            tf.distribute.ReduceOp.SUM, self._strategy.run(tf.identity, args=(value,)), axis=None
        )

    def chiefs(self, value: int) -> int:
        """Return the chief's value on every worker; all have to call it and wait for others."""
        if self.count == 1:
            return value
        mine = float(value if self.is_chief else 0)
        total = self._sum(tf.constant(mine, tf.float64))
        return round(float(total) / self.replicas_each)

    def barrier(self) -> None:
        """Return when every worker has called this."""
        self.chiefs(0)


def check_batch_size(strategy: tf.distribute.Strategy, global_batch_size: int, parts: int) -> None:
    """Check that the global batch divides over replicas and micro-batches.

    Raises:
        TokenmillError: It does not.
    """
    replicas = strategy.num_replicas_in_sync
    if global_batch_size % (replicas * parts):
        raise TokenmillError(
            f"train.global_batch_size = {global_batch_size} does not divide into {replicas} "
            f"replicas of {parts} micro-batches.",
            f"Set it to a multiple of {replicas * parts}, or change train.accumulation_steps.",
        )
