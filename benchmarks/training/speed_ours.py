"""Tokens per second of tokenmill's own training step, one JSON line a round.

Waits for a line on standard input before each round, so that speed.py can interleave peers.
"""

import argparse
import json
import sys
import time

import numpy as np
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.optimizer import make_optimizer
from components.train.step import make_train_step
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import Batch


def main() -> None:
    """Builds, compiles, then measures a round for each line read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--documents", type=int, default=1, help="documents a row")
    options = parser.parse_args()
    divide_cores()
    shape = ModelShape(
        layers=options.layers,
        d_model=options.width,
        heads=options.width // 64,
        d_ff=4 * options.width,
        vocab_size=options.vocab,
        sequence_length=options.length,
        positions="learned",
        norm="layer",
        use_bias=True,
        mlp="gelu",
        tie_embeddings=True,
    )
    size = (options.rows, options.length)
    tokens = np.random.default_rng(0).integers(0, options.vocab, (size[0], size[1] + 1))
    steps = np.arange(options.length) % -(-options.length // options.documents)
    ids = [tokens[:, :-1], tokens[:, 1:], np.cumsum(steps == 0), steps]
    ids = [tf.constant(np.broadcast_to(x, size).astype(np.int32)) for x in ids]
    batch = Batch(*ids, tf.ones(size))
    model = build_model(shape, 1)
    settings = TrainConfig(warmup_fraction=0.01)
    optimizer = make_optimizer(settings, 10_000)
    optimizer.build(model.trainable_variables)

    train_step = make_train_step(
        tf.distribute.get_strategy(), model, optimizer, clip_norm=1.0, jit_compile=True, seed=1
    )

    def step(batch):
        result = train_step(batch, tf.zeros([]), False)
        return float(result.nll) / float(result.weight)

    started = time.perf_counter()
    step(batch)
    compile_seconds = time.perf_counter() - started
    step(batch)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(options.steps):
            loss = step(batch)
        seconds = (time.perf_counter() - started) / options.steps
        result = {
            "peer": "tokenmill",
            "tokens_per_second": options.rows * options.length / seconds,
            "step_seconds": seconds,
            "loss": loss,
            "compile_seconds": compile_seconds,
        }
        print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
