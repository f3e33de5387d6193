"""From a checkpoint directory and 200 documents to an adapted, pushed and exported model."""

import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from open_tokenizers import values_of
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from pipeline.embedded_corpus import build_embedded_corpus
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.checkpoints.writing import write_checkpoint
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape

SPECIAL = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
RUN = (
    "train.max_steps=30", "train.learning_rate=3e-3", "train.global_batch_size=8",
    "corpus.eval_fraction=0.1", "cost.mfu=0.4", "evaluate.beat_baseline=false",
)  # fmt: skip


GENERAL = "The quick brown fox jumps over the lazy dog, and the dog minds nothing. " * 9


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small random Llama with a tokenizer of Llama 3's kind, and two rows more than tokens."""
    directory = tmp_path_factory.mktemp("llama")
    values = values_of("Llama 3")
    rows = 2 + max(values["model"]["vocab"].values()) + 1
    shape = ModelShape(
        layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64, vocab_size=rows, sequence_length=128,
        positions="rope", norm="rms", use_bias=False, mlp="swiglu", tie_embeddings=True,
        rope_base=5e5,
    )  # fmt: skip
    weights = {v.path.split("/", 1)[1]: np.asarray(v) for v in build_model(shape, 3).variables}
    write_checkpoint(str(directory), shape, weights.__getitem__, "float32")
    (directory / "tokenizer.json").write_text(json.dumps(values))
    (directory / "tokenizer_config.json").write_text(json.dumps(SPECIAL))
    return directory


def bits_per_byte(directory):
    """Of GENERAL, by the weights of a directory and the `tokenizers` library."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = tokenizer.encode(GENERAL, add_special_tokens=False).ids
    begin, end = (tokenizer.token_to_id(SPECIAL[f"{x}_token"]) for x in ("bos", "eos"))
    checkpoint = read_checkpoint(str(directory))
    model = build_model(checkpoint.shape, seed=0)
    assert checkpoint.assign(model) == []
    inputs, targets, nats = [begin, *ids], [*ids, end], 0.0
    length = checkpoint.shape.sequence_length
    assert len(inputs) > length  # more than one row
    for start in range(0, len(inputs), length):
        row = np.array([inputs[start : start + length]], np.int32)
        logits = model(row, np.ones_like(row), np.arange(row.shape[1], dtype=np.int32)[None])
        logits = np.asarray(logits, np.float64)[0]
        wanted = logits[np.arange(row.shape[1]), targets[start : start + length]]
        nats += float((np.log(np.exp(logits).sum(-1)) - wanted).sum())
    return nats / math.log(2) / len(GENERAL.encode())


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def run(*words):
    result = command(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    with open(build_embedded_corpus().path, encoding="utf-8") as lines:
        path.write_text("".join(itertools.islice(lines, 200)), encoding="utf-8")
    return path


def test_three_commands(llama, documents, tmp_path):
    home, out = tmp_path / "home", tmp_path / "out"
    assert "LlamaForCausalLM" in run("import", llama)
    settings = [word for setting in RUN for word in ("--set", setting)]
    base = ("--set", f"model.base_model={llama}")
    run("run", "--input", documents, "--output-dir", home, *base, *settings)
    quality = json.loads(run("lineage", home / "serving_model", "--json"))["cost_report"]["quality"]
    assert quality["eval_after"]["loss"] < 0.9 * quality["eval_before"]["loss"]
    run("export", "hf", home / "serving_model", out)
    # The same model with other weights, and the very tokenizer.
    config, before = (json.loads((path / "config.json").read_text()) for path in (out, llama))
    for name, value in before.items():
        assert config[name] == value, name
    ids = {t["content"]: t["id"] for t in values_of("Llama 3")["added_tokens"]}
    assert config["bos_token_id"] == ids[SPECIAL["bos_token"]]
    assert config["eos_token_id"] == ids[SPECIAL["eos_token"]]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (llama / name).read_bytes()
    ours, theirs = (load_file(path / "model.safetensors") for path in (out, llama))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].shape == theirs[name].shape for name in theirs)
    assert all(np.isfinite(values).all() for values in ours.values())
    moved = np.abs(
        ours["model.layers.0.mlp.up_proj.weight"] - theirs["model.layers.0.mlp.up_proj.weight"]
    )
    assert moved.max() > 1e-3
    assert len(os.listdir(home / "serving_model")) == 1
    card = (out / "README.md").read_text()
    assert "200 documents" in card
    text = run("generate", "Returns the", "--model", home / "serving_model")
    assert text.startswith("Returns the")

    refused = command("export", "hf", "--adapter", home / "serving_model", tmp_path / "adapter")
    assert refused.returncode == 1
    assert "has no adapters: all its weights were trained" in refused.stderr
    assert not (tmp_path / "adapter").exists()


def test_adapters_are_trained_and_handed_over_alone(llama, documents, tmp_path):
    home, out, whole = tmp_path / "home", tmp_path / "adapter", tmp_path / "whole"
    settings = [word for setting in RUN for word in ("--set", setting)]
    general = tmp_path / "general.txt"
    general.write_text(GENERAL)
    lora = (
        "--set", f"model.base_model={llama}", "--set", "train.lora_rank=4",
        "--set", f"evaluate.forgetting_input={general}", "--set", "evaluate.max_forgetting=0.2",
    )  # fmt: skip
    shown = run("run", "--input", documents, "--output-dir", home, *lora, *settings)
    assert "On the general text (1 document) the base model has" in " ".join(shown.split())
    assert "untrained" not in shown
    quality = json.loads(run("lineage", home / "serving_model", "--json"))["cost_report"]["quality"]
    assert quality["base_model"] == str(llama)
    general_text = quality["evaluation"]["forgetting"]
    assert (general_text["documents"], general_text["bytes"]) == (1, len(GENERAL.encode()))
    before, after = general_text["before"], general_text["after"]
    assert before["bits_per_byte"] == pytest.approx(bits_per_byte(llama), rel=1e-5)
    assert after["bits_per_byte"] != pytest.approx(before["bits_per_byte"], rel=1e-3)
    said = run("export", "hf", "--adapter", home / "serving_model", out)
    assert f"base model: {llama}" in said
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (str(llama), 4)
    assert sorted(os.listdir(out)) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (llama / name).read_bytes()
    card = (out / "README.md").read_text()
    assert f'base_model: "{llama}"' in card.split("---")[1]
    assert "library_name: peft" in card.split("---")[1]
    assert "200 documents" in card
    # What the adapters add to the base model's weights is what the merged model has more.
    run("export", "hf", home / "serving_model", whole)
    assert after["bits_per_byte"] == pytest.approx(bits_per_byte(whole), rel=1e-4)
    assert "On the general text (1 document)" in card
    assert f"Trained from {llama}, which has on the same text" in card
    base, merged = (load_file(path / "model.safetensors") for path in (llama, whole))
    adapters = load_file(out / "adapter_model.safetensors")
    for name, values in base.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        pair = [adapters.pop(f"{module}.lora_{x}.weight", None) for x in "BA"]
        added = 0.0 if pair[0] is None else config["lora_alpha"] / 4 * (pair[0] @ pair[1])
        np.testing.assert_allclose(merged[name], values + added, atol=1e-6, err_msg=name)
        assert (pair[0] is None) is not ("_proj" in name), name
    assert not adapters
    other = tmp_path / "other"
    run("export", "hf", "--adapter", "--base-model", "a/name", home / "serving_model", other)
    named = json.loads((other / "adapter_config.json").read_text())
    assert named == config | {"base_model_name_or_path": "a/name"}
    refused = command("export", "hf", "--base-model", "a/name", home / "serving_model", tmp_path)
    assert refused.returncode == 2
