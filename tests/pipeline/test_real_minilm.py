"""A trained MiniLM and 200 documents: imported, adapted, pushed, served and exported."""

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers ops of the pushed model)
from real_minilm import minilm_directory
from safetensors.numpy import load_file

from pipeline.embedded_corpus import build_embedded_corpus

GOLDEN = pathlib.Path(__file__).parent / "golden" / "minilm.npz"
# Few steps: without XLA they take less than it does to compile them.
SETTINGS = (
    "train.task=masked-lm", "train.jit_compile=false", "train.global_batch_size=4",
    "train.max_steps=12", "model.sequence_length=256", "cost.mfu=0.4",
    # Twelve steps do not make a head.
    "evaluate.beat_baseline=false",
)  # fmt: skip
# The least that a run can train: no weight that counts moves.
UNTRAINED = ("train.max_steps=1", "train.learning_rate=1e-12", "evaluate.require_improvement=false")


def command(*words):
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def minilm():
    return minilm_directory()


@pytest.fixture(scope="module")
def run(minilm, tmp_path_factory):
    """Runs the pipeline on 200 documents; all runs share the steps before the Trainer."""
    root = tmp_path_factory.mktemp("minilm")
    with open(build_embedded_corpus().path, encoding="utf-8") as lines:
        text = "".join(itertools.islice(lines, 200))
    (root / "documents.jsonl").write_text(text, encoding="utf-8")
    pushed = root / "serving_model"

    def start(*more):
        before = set(pushed.iterdir()) if pushed.exists() else set()
        settings = (f"model.base_model={minilm}", *SETTINGS, *more)
        options = [word for setting in settings for word in ("--set", setting)]
        screen = command(
            "run", "--preset", "adapt-bert", "--input", root / "documents.jsonl",
            "--output-dir", root, *options,
        )  # fmt: skip
        (version,) = set(pushed.iterdir()) - before
        return version, screen

    return start


def quality_of(version):
    return json.loads(command("lineage", version, "--json"))["cost_report"]["quality"]


def embed(version, texts):
    outputs = tf.saved_model.load(str(version)).signatures["embed"](text=tf.constant(texts))
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.slow  # two runs
@pytest.mark.timeout(1200)
def test_three_commands_and_the_vectors_of_sentence_transformers(minilm, run, tmp_path):
    facts = json.loads(command("import", minilm, "--json"))
    assert facts["parameters"] == 22_713_216
    assert facts["pooling"] == {"mode": "mean", "normalized": True, "max_tokens": 256}

    adapted, screen = run()
    said = " ".join(screen.split())
    assert "no weights for output_bias, head_dense, head_norm: they started at random" in said
    assert "embed is that of model.base_model: mean of all tokens" in said
    quality = quality_of(adapted)
    assert quality["eval_after"]["loss"] < 0.95 * quality["eval_before"]["loss"]
    described = json.loads((adapted / "assets.extra" / "model.json").read_text())
    assert described["pooling"] == facts["pooling"]

    out = tmp_path / "out"
    assert "BertForMaskedLM" in command("export", "hf", adapted, out)
    assert json.loads(command("import", out, "--json"))["pooling"] == facts["pooling"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (minilm / name).read_bytes()
    ours, theirs = (load_file(path / "model.safetensors") for path in (out, minilm))
    query = "encoder.layer.3.attention.self.query.weight"
    moved = np.abs(ours[f"bert.{query}"] - theirs[query])
    assert 1e-6 < moved.max() < 1e-2  # a rate that suits: neither nothing nor another model

    untrained, _ = run(*UNTRAINED)
    golden = np.load(GOLDEN)
    texts = golden["texts"].tolist()
    answer = embed(untrained, texts)
    np.testing.assert_allclose(answer["embedding"], golden["vectors"], rtol=0, atol=1e-5)
    for text, read, cut in (("", 0, 0), ("one " * 254 + "two", 254, 1)):
        place = texts.index(text)
        assert (answer["token_count"][place], answer["truncated_tokens"][place]) == (read, cut)
    # Training has moved them, and not by much.
    alike = (embed(adapted, texts)["embedding"] * golden["vectors"]).sum(-1)
    assert 0.7 < alike.min() < 1 - 1e-6
