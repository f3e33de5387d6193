"""The Trainer's model, optimizer and step for one case, and what the ledger forecasts of it."""

import argparse
import dataclasses
from typing import Any, NamedTuple
from unittest import mock

import inputs
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.optimizer import make_optimizer
from components.train.step import make_train_step
from data.catalog.chips import find_chip
from pipeline.loader import load_config
from tokenmill.cost.flops import flops_per_token, trained_flops_per_token
from tokenmill.cost.memory import estimate_memory
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import Batch

# A short run, so that the warm-up is over and the loss falls within the steps that are compared.
RUN_STEPS, WARMUP_FRACTION, LEARNING_RATE = 1_000, 0.01, 6e-4


class Trainer(NamedTuple):
    """What one case trains with.

    Attributes:
        model: Its weights are those of inputs.py.
        optimizer: Built.
        step: From make_train_step.
        batch: Of inputs.py.
        weights: Place, path, shape, mean and stddev of each weight, as inputs.weight takes them.
    """

    model: Any
    optimizer: Any
    step: Any
    batch: Batch
    weights: list[dict[str, Any]]


def preset_shape(length: int, small: bool) -> ModelShape:
    """Return the shape of the preset gpt2-small at a sequence length.

    Args:
        length: Tokens a row.
        small: Two narrow layers instead, for a trial on a CPU.
    """
    changes: dict[str, Any] = {"sequence_length": length}
    if small:
        changes |= {"layers": 2, "d_model": 128, "heads": 2, "d_ff": 512, "vocab_size": 1024}
    return dataclasses.replace(load_config("gpt2-small", None).shape(), **changes)


def make_trainer(
    shape: ModelShape,
    precision: str,
    rows: int,
    *,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool = True,
    whole_batch: bool = True,
) -> Trainer:
    """Build model, optimizer and step as the Trainer does.

    Args:
        shape: The model.
        precision: `train.precision`.
        rows: Of the batch.
        strategy: None for one device.
        jit_compile: Whether XLA compiles the step.
        whole_batch: Compute the batch in one part, as on an accelerator, on a CPU too.
    """
    strategy = strategy or tf.distribute.get_strategy()
    config = TrainConfig.model_validate(
        {
            "learning_rate": LEARNING_RATE,
            "warmup_fraction": WARMUP_FRACTION,
            "precision": precision,
        }
    )
    with strategy.scope():
        model = build_model(shape, 1, precision)
        optimizer = make_optimizer(config, RUN_STEPS)
        optimizer.build(model.trainable_variables)
    weights = []
    for index, variable in enumerate(model.trainable_variables):
        is_matrix = len(variable.shape) > 1
        place = {
            "index": index,
            "path": variable.path,
            "shape": [int(n) for n in variable.shape],
            "mean": 1.0 if variable.path.endswith("gamma") else 0.0,
            "stddev": 0.02 if is_matrix else 0.0,
        }
        weights.append(place)
        variable.assign(inputs.weight(index, place["shape"], place["mean"], place["stddev"]))
    batch = Batch(*map(tf.constant, inputs.batch(rows, shape.sequence_length, shape.vocab_size)))
    options: dict[str, Any] = {"clip_norm": config.clip_norm, "jit_compile": jit_compile}
    if whole_batch:
        with mock.patch("components.train.step.replica_parallelism", return_value=1):
            step = make_train_step(strategy, model, optimizer, seed=1, **options)
    else:
        step = make_train_step(strategy, model, optimizer, seed=1, **options)
    return Trainer(model, optimizer, step, batch, weights)


def losses(trainer: Trainer, steps: int) -> list[float]:
    """Train on the same batch and return each step's mean loss, nats a token."""
    found = []
    for _ in range(steps):
        result = trainer.step(trainer.batch, tf.zeros([]), False)
        if bool(result.refused):
            raise ValueError("a step was refused: expected a finite loss and gradient")
        found.append(float(result.nll) / float(result.weight))
    return found


def forecast(shape: ModelShape, precision: str, rows: int, chip_name: str) -> dict[str, Any]:
    """Return what the ledger's formulas say of a case on one chip of the catalog.

    Returns:
        Model FLOPs a token (`flops_per_token`) and those the Trainer computes, the peak of the
        precision (FLOP/s), and the memory by part and in all (bytes).
    """
    chip = find_chip(chip_name)
    memory = estimate_memory(
        shape,
        batch_per_device=rows,
        precision=precision,  # type: ignore[arg-type]
        dropout=False,
    )
    return {
        "chip": chip.slug,
        "flops_per_token": flops_per_token(shape).training,
        "computed_flops_per_token": trained_flops_per_token(shape),
        "peak_flops_per_second": chip.peak_for(precision),
        "peak_16_bit_flops_per_second": chip.peak_flops_per_second,
        "memory_bytes": {**memory.by_part(), "total": memory.total},
    }


def case_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which case is meant."""
    parser.add_argument("--rows", type=int, default=8, help="sequences a step")
    parser.add_argument("--length", type=int, default=1024, help="tokens a sequence")
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--small", action="store_true", help="two narrow layers, for a trial")
    parser.add_argument("--chip", default="h200", help="a chip of data/catalog")
