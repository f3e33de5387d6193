"""Trains as a job file says, in a process that a test may kill.

With a file as argument it trains and exits. Without, it is a server: it imports TensorFlow once
and forks for each job, since an import takes longer than a training of a test. No operation runs
before the fork: TensorFlow starts its threads with the first one.
"""

import functools
import hashlib
import json
import os
import sys
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train_as_told(path):
    """Runs a job file; returns the exit code."""
    import tensorflow as tf

    from components.train import loop
    from components.train.config import TrainingJob
    from components.train.distributed import cpu_parallelism
    from components.train.execution import Execution
    from components.train.run import describe, train
    from tokenmill import progress
    from tokenmill.errors import TokenmillError

    cpu_parallelism._LEAST_SLOTS = 16  # rows are short here; parts are to be computed side by side
    with open(path, encoding="utf-8") as source:
        told = json.load(source)
    devices = told["options"].pop("cpu_devices", 1)
    if devices > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * devices,
        )
    if "bucket_bytes" in told["options"]:  # models here are far smaller than a bucket
        loop.make_train_step = functools.partial(
            loop.make_train_step, bucket_bytes=told["options"].pop("bucket_bytes")
        )
    if "threads" in told["options"]:
        threads = told["options"].pop("threads")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    progress.set_listener(None, lambda message: print("SAID", message, flush=True))
    job = TrainingJob.model_validate(told["job"])
    try:
        tokenizer_path = told["options"].pop("tokenizer_path", None)
        execution = Execution(**told["options"])
        training = train(
            job, told["rows_uri"], told["training_directory"], execution, tokenizer_path
        )
    except TokenmillError as error:
        print("ERROR", error, flush=True)
        return getattr(error, "exit_code", 1)
    digest = hashlib.sha256()
    for weight in training.model.variables:
        digest.update(weight.numpy().tobytes())
    result = {**describe(training, job).to_json(), "weights": digest.hexdigest()}
    result["samples"] = [point.to_json() for point in training.record.samples]
    aside = path.replace(".json", ".result.writing")
    with open(aside, "w", encoding="utf-8") as out:
        json.dump(result, out)
    os.rename(aside, path.replace(".json", ".result"))
    return 0


def serve():
    """Forks for each job named on standard input; `wait <pid>` gives an exit code."""
    import components.train.run  # noqa: F401

    for line in sys.stdin:
        words = line.split()
        if words[0] == "wait":
            _, status = os.waitpid(int(words[1]), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        out = os.open(words[0].replace(".json", ".out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = 1
        try:
            code = train_as_told(words[0])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        code = train_as_told(sys.argv[1])
        sys.stdout.flush()
        os._exit(code)
    serve()
