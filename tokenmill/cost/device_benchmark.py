"""The peak of the machine at hand, measured: a CPU has none that a catalog could state."""

import time

from tokenmill.machine import vcpus

# Large enough to run at the rate of the caches and cores, small enough for a second in all.
_SIZE = 1024
_SECONDS = 0.6


def measure_matmul_flops_per_second() -> float:
    """Measure float32 FLOP/s of TensorFlow's matrix product on this machine, all cores at once.

    The best of several short rounds: other load can only slow a round down.
    """
    import tensorflow as tf

    # Where an operation may not use all cores, several do, side by side.
    threads = tf.config.threading.get_intra_op_parallelism_threads() or vcpus()
    matrices = [
        tf.random.stateless_normal([_SIZE, _SIZE], seed=[1, i])
        for i in range(max(1, vcpus() // threads))
    ]
    multiply = tf.function(lambda each: [tf.matmul(x, x) for x in each])
    multiply(matrices)
    flops_each, best = len(matrices) * 2.0 * _SIZE**3, 0.0
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        for _ in range(4):
            products = multiply(matrices)
        for product in products:
            product.numpy()
        best = max(best, 4 * flops_each / (time.perf_counter() - started))
    return best
