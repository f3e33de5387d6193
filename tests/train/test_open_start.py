"""Training that starts from the weights of a Hugging Face checkpoint."""

import json
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from components.train.config import TrainConfig, TrainingJob
from components.train.run import train
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.model.build import build_model, loss_sums
from tokenmill.rows.packed_split import PackedSplit

GOLDEN = pathlib.Path(__file__).parents[1] / "checkpoints" / "golden" / "qwen3"
VOCAB, LENGTH = 300, 16  # of the counting rows


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen3")
    config = json.loads((GOLDEN / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "vocab_size": VOCAB}))
    tensors = load_file(GOLDEN / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = np.resize(table, (VOCAB, table.shape[1]))
    save_file(tensors, directory / "model.safetensors")
    return str(directory)


def eval_loss(model, rows_uri):
    rows = PackedSplit(rows_uri, "eval")
    sums = loss_sums(model, rows.read(np.arange(rows.rows)))
    return float(sums.nll) / float(sums.weight)


def test_a_training_begins_with_the_checkpoints_loss_and_lowers_it(base, counting_rows):
    checkpoint = read_checkpoint(base, LENGTH)
    config = TrainConfig(
        learning_rate=1e-2, jit_compile=False, global_batch_size=8, epochs=100, max_steps=30
    )
    job = TrainingJob(shape=checkpoint.shape, train=config, seed=7, base_model=base)
    training = train(job, counting_rows, None, tokenizer_path="")
    model = build_model(checkpoint.shape, seed=1)
    checkpoint.assign(model)
    before, after = training.record.eval_before, training.record.eval_after
    assert before.loss == pytest.approx(eval_loss(model, counting_rows), rel=1e-5)
    assert after.loss < 0.8 * before.loss
    assert training.model.count_params() == checkpoint.parameters
