"""The peak of the machine at hand, measured: a CPU has none that a catalogue could state."""

import os
import time

# Large enough to run at the rate of the caches and cores, small enough for a second in all.
_SIZE = 1024
_SECONDS = 0.6


def memory_bytes() -> int:
    """Memory of this machine, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure_matmul_flops_per_second() -> float:
    """float32 FLOP/s of TensorFlow's matrix product on this machine, all cores together.

    The best of several short rounds: other load can only slow a round down.
    """
    import tensorflow as tf

    a = tf.random.stateless_normal([_SIZE, _SIZE], seed=[1, 2])
    multiply = tf.function(lambda x: tf.matmul(x, x))
    multiply(a)
    flops_each, best = 2.0 * _SIZE**3, 0.0
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        for _ in range(4):
            product = multiply(a)
        product.numpy()
        best = max(best, 4 * flops_each / (time.perf_counter() - started))
    return best
