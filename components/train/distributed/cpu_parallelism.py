"""A batch in parts that are computed side by side, each on cores of its own.

TensorFlow and XLA divide each operation over all cores of a CPU and wait for the slowest part; what
cannot be divided leaves cores idle. Parts of the batch need no waiting, and one's operations that
are bound by memory run beside another's matrix products: 1.16 times the tokens per second on two
cores (benchmarks/training). Accelerators divide operations themselves.
"""

import tensorflow as tf

from components.train.distributed.strategy import Workers, has_accelerator
from tokenmill.cost.devices import CPU_PARALLELISM
from tokenmill.machine import vcpus
from tokenmill.rows.packed_split import Batch

# Below so many slots a matrix product is slow.
_LEAST_SLOTS = 512


def replica_parallelism(strategy: tf.distribute.Strategy) -> int:
    """Return the number of parts of a replica's batch that may be computed side by side."""
    # Several replicas in one process run side by side already.
    alone = Workers(strategy).replicas_each == 1
    return CPU_PARALLELISM if alone and not has_accelerator() else 1


def divide_cores() -> None:
    """Give each part of a batch its share of cores; call it before the first operation."""
    if not tf.config.list_physical_devices("GPU"):
        tf.config.threading.set_intra_op_parallelism_threads(max(1, vcpus() // CPU_PARALLELISM))
        # TensorFlow knows the affinity, but no quota of a container.
        tf.config.threading.set_inter_op_parallelism_threads(vcpus())


def split(batch: Batch, most: int, micro_batches: int = 1) -> list[Batch]:
    """Split a batch into equal parts, in its order.

    Args:
        batch: Arrays [rows, width], of static shape.
        most: Parts at most; a power of two.
        micro_batches: Each part must divide into so many again.
    """
    rows, width = batch.inputs.shape
    parts = most
    while parts > 1 and (
        rows % (parts * micro_batches) or rows // (parts * micro_batches) * width < _LEAST_SLOTS
    ):
        parts //= 2
    return [Batch(*each) for each in zip(*(tf.split(x, parts) for x in batch), strict=True)]
