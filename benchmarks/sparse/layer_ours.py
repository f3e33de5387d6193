"""CPU seconds of a layer of experts beside a dense MLP of the same active FLOPs.

    PYTHONPATH=. .venv/bin/python benchmarks/sparse/layer_ours.py

Forward and backward pass under XLA, 2,048 tokens in two parts side by side as the trainer has them:
256 features, 8 experts of 512, two a token, against a dense MLP of 1,024. Process seconds, as the
cores may be shared. Inputs are new in each round, so that nothing can be folded.
"""

import time

import numpy as np
import tensorflow as tf

from tokenmill.model.layers import Block, Builder
from tokenmill.model.shape import ModelShape

TOKENS, WIDTH, INNER, PARTS, ROUNDS, STEPS = 2048, 256, 512, 2, 10, 3
SHAPE = ModelShape(
    layers=1, d_model=WIDTH, heads=4, d_ff=2 * INNER, vocab_size=64, sequence_length=256,
    positions="rope", norm="layer", use_bias=False, mlp="gelu", tie_embeddings=True,
)  # fmt: skip
SPARSE = ModelShape(
    **{**SHAPE.__dict__, "experts": 8, "experts_per_token": 2, "d_ff": INNER, "balance": "none"}
)


def make_step(shape, inputs):
    """Return a function that computes an MLP's gradients for all parts of the tokens."""
    mlp = Block(Builder(shape, "float32", 0), "layer", has_experts=shape.experts > 1).mlp
    mlp.build((None, WIDTH))

    @tf.function(jit_compile=True, autograph=False)
    def part(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(mlp(x) * tf.stop_gradient(x))
        return tape.gradient(total, [x, *mlp.trainable_variables])

    return tf.function(lambda: [part(tf.identity(x)) for x in inputs], autograph=False)


def main() -> None:
    """Print milliseconds of both, in turns."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(PARTS)
    rng = np.random.default_rng(0)
    inputs = [tf.Variable(tf.zeros([TOKENS // PARTS, WIDTH])) for _ in range(PARTS)]
    steps = {"dense": make_step(SHAPE, inputs), "experts": make_step(SPARSE, inputs)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for x in inputs:
            x.assign(rng.normal(size=x.shape))
        for name, step in steps.items():
            started = time.process_time()
            for _ in range(STEPS):
                step()
            if number:  # the first compiles
                times[name].append((time.process_time() - started) / STEPS * 1e3)
    for name, each in times.items():
        against = np.median(each) / np.median(times["dense"])
        print(
            f"{name}: {min(each):.1f} ms least, {np.median(each):.1f} median, {against:.2f} x dense"
        )


if __name__ == "__main__":
    main()
