"""`tokenmill import DIR` and `model.base_model = DIR` of a Hugging Face checkpoint."""

import json
import pathlib

import numpy as np
import pytest
import tomli
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from pipeline.cli import cli
from pipeline.loader import load_config
from pipeline.runners.preflight import check_before_start
from tokenmill.checkpoints.base_model import load_start_weights
from tokenmill.errors import TokenmillError
from tokenmill.model.build import build_model

GOLDEN = pathlib.Path(__file__).parents[1] / "checkpoints" / "golden"
VOCAB = 320


@pytest.fixture
def base(tmp_path):
    """A Qwen 3 with a vocabulary as large as a configuration needs."""
    directory = tmp_path / "qwen3"
    directory.mkdir()
    config = json.loads((GOLDEN / "qwen3" / "config.json").read_text()) | {"vocab_size": VOCAB}
    (directory / "config.json").write_text(json.dumps(config))
    tensors = load_file(GOLDEN / "qwen3" / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = np.resize(table, (VOCAB, table.shape[1]))
    save_file(tensors, directory / "model.safetensors")
    return directory


def configured(base, *overrides):
    return load_config(overrides=[f'model.base_model="{base}"', *overrides])


def checked(base, tmp_path, *overrides):
    check_before_start(configured(base, f'run.output_dir="{tmp_path / "home"}"', *overrides))


def test_shape_and_tokenizer_are_taken_from_the_checkpoint(base):
    config = configured(base)
    shape = config.shape()
    assert (shape.layers, shape.d_model, shape.heads, shape.kv_heads) == (2, 16, 2, 1)
    assert (shape.head_dim, shape.qk_norm, shape.mlp, shape.norm) == (12, True, "swiglu", "rms")
    assert (shape.rope_base, shape.norm_epsilon, shape.vocab_size) == (1_000_000.0, 1e-6, VOCAB)
    assert config.tokenizer.path == str(base)
    assert config.model.sequence_length == 24  # the default is longer than the model was made for


def test_such_a_run_starts_from_its_weights(base, tmp_path):
    checked(base, tmp_path)
    model = build_model(configured(base).shape(), seed=0)
    assert load_start_weights(model, str(base), tokenizer_path="") == []
    stored = load_file(base / "model.safetensors")
    up = next(v for v in model.trainable_variables if v.path == "decoder/layer1/mlp/up/kernel")
    np.testing.assert_array_equal(up.numpy(), stored["model.layers.1.mlp.up_proj.weight"].T)


def test_rows_of_another_length_are_the_users_choice(base, tmp_path):
    checked(base, tmp_path, "model.sequence_length=16")
    with pytest.raises(TokenmillError, match=r"model\.sequence_length = 25: .* at most 24 tokens"):
        checked(base, tmp_path, "model.sequence_length=25")


def test_what_the_user_sets_and_differs_is_named_with_both_values(base, tmp_path):
    with pytest.raises(TokenmillError) as caught:
        checked(base, tmp_path, "model.qk_norm=false", "model.rope_base=500.0")
    assert "model.qk_norm = false, there true" in caught.value.message
    assert "model.rope_base = 500.0, there 1000000.0" in caught.value.message
    assert "--set model.qk_norm=true" in caught.value.hint


def test_a_decoder_is_no_masked_language_model(base, tmp_path):
    with pytest.raises(TokenmillError, match=r"is a decoder, which train\.task = masked-lm"):
        checked(base, tmp_path, "train.task=masked-lm")


def test_another_tokenizer_is_refused(base, tmp_path):
    other = tmp_path / "tokenizer.model"
    other.write_bytes(b"other")
    with pytest.raises(TokenmillError, match="an id means another piece of text") as caught:
        checked(base, tmp_path, f'tokenizer.path="{other}"')
    assert f"--set tokenizer.path={base}" in caught.value.hint


def test_what_cannot_be_expressed_is_told_before_the_first_step(base, tmp_path):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "hidden_act": "relu2"}))
    with pytest.raises(TokenmillError, match="hidden_act = 'relu2'"):
        checked(base, tmp_path)


def run(*arguments):
    return CliRunner().invoke(cli, ["import", *map(str, arguments)])


def test_import_shows_what_a_checkpoint_is(base):
    result = run(base)
    assert result.exit_code == 0, result.output
    facts, keys = result.output.split("\n\n", 1)
    assert "qwen3 (Qwen3ForCausalLM)" in facts
    assert "10,624, stored as float32" in facts
    # What it prints is a configuration that has its shape.
    assert load_values(keys)["base_model"] == str(base)
    shape = load_config(overrides=[*overrides_of(keys), f"tokenizer.vocab_size={VOCAB}"]).shape()
    assert shape.backbone() == configured(base).shape().backbone()


def load_values(keys):
    return tomli.loads(keys)["model"]


def overrides_of(keys):
    return [f"model.{key}={json.dumps(value)}" for key, value in load_values(keys).items()]


def test_import_as_json():
    result = run(GOLDEN / "sentences", "--json")
    found = json.loads(result.output)
    assert found["pooling"] == {"mode": "mean", "normalized": True, "max_tokens": 24}
    assert (found["family"], found["head"], found["max_positions"]) == ("bert", None, 24)


def test_import_reads_every_weight(base):
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, base / "model.safetensors")
    result = run(base)
    assert result.exit_code == 1
    assert "tensor model.norm.weight: 1 of 16 values are not finite" in result.stderr


def test_import_of_a_window_with_shorter_rows(tmp_path):
    config = json.loads((GOLDEN / "mistral" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "sliding_window": 8}))
    (tmp_path / "model.safetensors").symlink_to(GOLDEN / "mistral" / "model.safetensors")
    assert "sliding_window = 8" in run(tmp_path).stderr
    assert run(tmp_path, "--sequence-length", 8).exit_code == 0
