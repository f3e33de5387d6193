"""What test_subprocess.py has called in another process: a module that both can import."""

import os
import signal

import tensorflow as tf

from components.train.distributed.cpu_parallelism import divide_cores
from tokenmill.errors import TokenmillError


def where_it_runs(job, start_seconds, ending):
    """Ends in a way of the test's choice, or tells where it ran."""
    divide_cores()

    if ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "ended":
        os.kill(os.getpid(), signal.SIGTERM)
    if ending == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
    if ending == "broken":
        raise ValueError("no such row: 17")
    if ending == "refused":
        raise TokenmillError("the rows are damaged.", "Make them anew.")
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return {
        "pid": os.getpid(),
        "seconds": start_seconds,
        "rows": job["train"]["max_steps"],
        "threads": threads,
    }
