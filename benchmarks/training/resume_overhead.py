"""Step time with checkpoints and telemetry against without, in interleaved rounds on one model.

    PYTHONPATH=$PWD .venv/bin/python benchmarks/training/resume_overhead.py [ROUNDS [STEPS]]

Model of the demo's width on 2 layers; each round trains the same steps three ways:
plain (nothing is written), saved (checkpoints by Daly's interval for mtbf_hours = 6, telemetry
every 10 steps) and often (a checkpoint every 10 steps, distributions every 25). The time is that of
the whole loop without the first step, evaluation and export; medians of the rounds.
"""

import json
import statistics
import sys
import tempfile

import numpy as np

from components.pack.job import PackJob
from components.pack.tokenized import TokenizedDocuments
from components.pack.transforms import pack_shard, write_manifest
from components.train.config import TrainConfig, TrainingJob
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.execution import Execution
from components.train.run import train
from tokenmill.contracts.training_limits import TrainingLimits
from tokenmill.model.shape import ModelShape

VOCAB, LENGTH = 4096, 256
LOOP_PHASES = ("steps", "input", "checkpoint", "telemetry", "other")
WAYS = {
    "plain": None,
    "saved": Execution(),
    "often": Execution(checkpoint_steps=10, detail_steps=25),
}
LIMITS = TrainingLimits(
    usd_per_chip_hour=0.036, chips=1, peak_flops_per_second=1e11, max_usd=None, max_hours=None,
    on_overrun="warn",
)  # fmt: skip


def write_rows(uri):
    settings, rng = (
        PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1),
        np.random.default_rng(0),
    )
    for split, count in (("train", 600), ("eval", 16)):
        documents = TokenizedDocuments(
            [b"%05d" % i for i in range(count)],
            [b"s"] * count,
            np.full(count, 900),
            np.full(count, 250),
            rng.integers(20, VOCAB, 250 * count).astype(np.int32),
            [b""] * count,
            [b"en"] * count,
            np.zeros((0, 2), np.int64),
            np.zeros(count, np.int64),
            np.full(count, -1.0, np.float32),
        )
        flags = np.zeros(VOCAB, np.uint8)
        directory = f"{uri}/Split-{split}"
        manifest = [pack_shard((0, [documents]), directory, settings, flags)]
        write_manifest(manifest, directory, settings, flags)


def main():
    divide_cores()
    rounds, steps = (int(x) for x in (*sys.argv[1:], "3", "60")[:2])
    shape = ModelShape(
        layers=2, d_model=256, heads=4, d_ff=1024, vocab_size=VOCAB, sequence_length=LENGTH,
        positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    config = TrainConfig(global_batch_size=8, epochs=100.0, max_steps=steps)
    job = TrainingJob(shape=shape, train=config, seed=1)
    times = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as root:
        write_rows(root)
        for number in range(rounds):
            for way, execution in WAYS.items():
                directory = None if execution is None else f"{root}/{way}-{number}"
                seconds = train(job, root, directory, execution, limits=LIMITS).record.seconds
                times[way].append(sum(seconds.get(p, 0.0) for p in LOOP_PHASES) / (steps - 1))
    medians = {way: statistics.median(values) for way, values in times.items()}
    ratios = {
        way: statistics.median(
            value / plain for value, plain in zip(values, times["plain"], strict=True)
        )
        for way, values in times.items()
    }
    print(
        json.dumps({"seconds_per_step": medians, "over_plain": ratios, "rounds": times}, indent=2)
    )


if __name__ == "__main__":
    main()
