"""LoRA through the real pipeline: from a pushed model to one with merged weights, and its books."""

import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

RANK = 4
# transformers' GPT-NeoX is the family of this shape.
MATRICES = {
    "attention.dense": "attention/output_projection",
    "mlp.dense_h_to_4h": "mlp/up",
    "mlp.dense_4h_to_h": "mlp/down",
}


@pytest.fixture(scope="module")
def adapted(workspace, first_run):
    """A run from the shared run's pushed model; with it both models' directories."""
    (base,) = (pathlib.Path(first_run.home) / "serving_model").iterdir()
    home = workspace.root / "adapted"
    run = workspace.run(
        "--output-dir", str(home), "--set", f"model.base_model={base}",
        "--set", f"train.lora_rank={RANK}", "--set", "train.max_steps=6",
        "--set", "train.learning_rate=0.01", "--set", "evaluate.require_improvement=false",
        "--set", "evaluate.beat_baseline=false", "--set", "cost.mfu=0.4",
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    (pushed,) = (home / "serving_model").iterdir()
    return run, home, base, pushed


def ledger_of(home):
    return json.loads(next(home.glob("artifacts/TokenLedger/ledger/*/ledger.json")).read_text())


def test_the_books_count_what_is_trained(adapted):
    run, home, _, _ = adapted
    assert f"LoRA of rank {RANK} on q, k, v, o, up, down" in run.said
    ledger = ledger_of(home)
    model, parts = ledger["model"], ledger["memory"]["bytes_by_part"]
    trained = model["params_trained"]
    assert trained == sum(model["params_trained_by_part"].values()) < model["params_total"] / 2
    assert parts["optimizer"] == 8 * trained
    assert parts["frozen_weights"] == 4 * model["params_total"]
    assert ledger["checkpoints"]["checkpoint_bytes"] == 12 * trained
    (telemetry,) = home.glob("artifacts/Trainer/model_run/*/telemetry.json")
    told = json.loads(telemetry.read_text())
    assert (told["params_trained"], told["params_total"]) == (trained, model["params_total"])
    newest = max(home.glob("training/*/checkpoints/step-*"))
    size = (newest / "variables-00000.safetensors").stat().st_size
    assert 12 * trained < size < 12 * trained + 30_000


def test_the_pushed_weights_are_those_of_the_base_and_what_the_adapters_add(adapted):
    _, home, base, pushed = adapted
    config = json.loads((pushed / "assets.extra/adapter/adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (RANK, str(base))
    content = (pushed / "assets.extra/adapter/adapter_model.safetensors").read_bytes()
    tensors = safetensors.numpy.load(content)
    assert len(tensors) == 2 * 2 * (1 + len(MATRICES))  # q, k and v are one matrix there
    stored = sum(np.count_nonzero(value) for value in tensors.values())
    assert stored == ledger_of(home)["model"]["params_trained"]
    old, new = (
        tf.train.load_checkpoint(str(d / "variables" / "variables")) for d in (base, pushed)
    )
    of_model = [
        {n: s for n, s in reader.get_variable_to_shape_map().items() if n.startswith("served/")}
        for reader in (old, new)
    ]
    assert of_model[0] == of_model[1]  # no adapter is left
    for module, path in MATRICES.items():
        a, b = (
            tensors[f"base_model.model.gpt_neox.layers.0.{module}.lora_{x}.weight"] for x in "AB"
        )
        change = config["lora_alpha"] / RANK * (b @ a).T
        key = f"served/model/blocks/0/{path}/_kernel/.ATTRIBUTES/VARIABLE_VALUE"
        assert np.abs(change).max() > 1e-4
        np.testing.assert_allclose(
            new.get_tensor(key), old.get_tensor(key) + change, rtol=0, atol=1e-6
        )
    table = "served/model/token_embedding/_embeddings/.ATTRIBUTES/VARIABLE_VALUE"
    np.testing.assert_array_equal(old.get_tensor(table), new.get_tensor(table))
    ids = tf.constant([[20, 21, 22, 23]])
    before, after = (
        tf.saved_model.load(str(d)).signatures["logits_ids"](token_ids=ids)["logits"].numpy()
        for d in (base, pushed)
    )
    assert np.abs(before - after).max() > 1e-3
