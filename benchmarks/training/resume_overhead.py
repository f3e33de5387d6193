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
from components.pack.tokenized import TokenizedDocument, TokenizedDocuments
from components.pack.transforms import pack_shard, write_manifest
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.run import TrainingJob, train
from tokenmill.contracts.training_options import RunOptions
from tokenmill.model.shape import ModelShape

VOCAB, LENGTH = 4096, 256
LOOP_PHASES = ("steps", "input", "checkpoint", "telemetry", "other")
WAYS = {
    "plain": None,
    "saved": RunOptions(usd_per_second=1e-5, peak_flops_per_second=1e11),
    "often": RunOptions(checkpoint_steps=10, detail_steps=25, usd_per_second=1e-5),
}


def write_rows(uri):
    settings, rng = (
        PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1),
        np.random.default_rng(0),
    )
    for split, count in (("train", 600), ("eval", 16)):
        documents = [
            TokenizedDocument(b"%05d" % i, b"s", 900, rng.integers(20, VOCAB, 250).astype(np.int32))
            for i in range(count)
        ]
        flags = np.zeros(VOCAB, np.uint8)
        shard = (0, [TokenizedDocuments.of(documents)])
        directory = f"{uri}/Split-{split}"
        manifest = [pack_shard(shard, directory, settings, flags)]
        write_manifest(manifest, directory, settings, flags)


def main():
    divide_cores()
    rounds, steps = (int(x) for x in (*sys.argv[1:], "3", "60")[:2])
    shape = ModelShape(
        n_layers=2, d_model=256, n_heads=4, d_ff=1024, vocab_size=VOCAB, sequence_length=LENGTH,
        positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    settings = {
        "learning_rate": 1e-3, "warmup_fraction": 0.05, "weight_decay": 0.1, "clip_norm": 1.0,
        "jit_compile": True, "seed": 1,
    }  # fmt: skip
    job = TrainingJob(shape.__dict__, settings, "default", "float32", 8, 100.0, steps)
    times = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as root:
        write_rows(root)
        for number in range(rounds):
            for way, options in WAYS.items():
                directory = None if options is None else f"{root}/{way}-{number}"
                seconds = train(job, root, directory, options).record.seconds
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
