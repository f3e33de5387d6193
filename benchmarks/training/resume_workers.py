"""Trains the overhead benchmark's model a while and prints its steady tokens/s."""

import os
import sys

from resume_overhead import LENGTH, VOCAB, write_rows

from components.train.config import TrainConfig, TrainingJob
from components.train.distributed.cpu_parallelism import divide_cores
from components.train.run import describe, train
from tokenmill.model.shape import ModelShape


def main():
    rows, strategy = sys.argv[1:]
    divide_cores()
    shape = ModelShape(
        layers=2, d_model=256, heads=4, d_ff=1024, vocab_size=VOCAB, sequence_length=LENGTH,
        positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    config = TrainConfig(strategy=strategy, epochs=100.0, max_steps=30)
    job = TrainingJob(shape=shape, train=config, seed=1)
    if not os.path.exists(rows):
        os.makedirs(rows)
        write_rows(rows)
    print(round(describe(train(job, rows), job).tokens_per_second))


if __name__ == "__main__":
    main()
