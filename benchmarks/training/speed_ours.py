"""Tokens per second of tokenmill's decoder, one JSON line a round.

Waits for a line on standard input before each round, so that speed.py can interleave peers.
"""

import argparse
import json
import sys
import time

import numpy as np
import tensorflow as tf

from components.model_shape import ModelShape
from components.pack.rows import Batch
from components.train.models import build_model, loss_sums
from components.train.optimizer import OptimizerSettings, clip_mean_gradients, make_optimizer


def main() -> None:
    """Builds, compiles, then measures a round for each line read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--documents", type=int, default=1, help="documents a row")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    shape = ModelShape(
        n_layers=options.layers,
        d_model=options.width,
        n_heads=options.width // 64,
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
    settings = OptimizerSettings(
        learning_rate=1e-3, warmup_fraction=0.01, weight_decay=0.1, clip_norm=1.0
    )
    optimizer = make_optimizer(settings, 10_000)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def step(batch):
        with tf.GradientTape() as tape:
            sums = loss_sums(model, batch)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(sums.objective, variables)]
        gradients, _ = clip_mean_gradients(optimizer, gradients, sums.weight, settings.clip_norm)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return sums.nll / sums.weight

    started = time.perf_counter()
    float(step(batch))
    compile_seconds = time.perf_counter() - started
    float(step(batch))
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(options.steps):
            loss = float(step(batch))
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
