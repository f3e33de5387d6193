"""`tokenmill export hf`: a directory for transformers, of a model that was pushed."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.export.saved_model import export_model
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape


@pytest.fixture(scope="module")
def pushed(exported, tmp_path_factory):
    """A model as tokenmill trains them by default, beside the same with weights of 8 bits."""
    shape = ModelShape(
        layers=2, d_model=32, heads=4, d_ff=64, vocab_size=340, sequence_length=48,
        positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    model = build_model(shape, seed=1)
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0.0, 0.3, weight.shape) + (weight.name == "gamma"))
    base = tmp_path_factory.mktemp("pushed")
    for name, kind in (("1", "float32"), ("int8", "int8")):
        where = str(base / name)
        export_model(model, exported.transform_graph, exported.tokenizer, where, kind)
    return base, model


def export(*words):
    return CliRunner().invoke(cli, ["export", "hf", *map(str, words)])


def test_the_newest_version_is_written_with_its_weights_tokenizer_and_card(pushed, tmp_path):
    base, model = pushed
    out = tmp_path / "out"
    result = export(base, out)
    assert result.exit_code == 0, result.output
    assert "GPTNeoXForCausalLM" in result.output
    assert "The model card will lack the run's numbers" in result.output  # no run pushed it
    difference = float(
        result.output.split("largest difference from the pushed model: ")[1].split()[0]
    )
    assert difference < 1e-4
    assert sorted(os.listdir(out)) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    ]  # fmt: skip
    other = build_model(model.shape_config, seed=2)
    assert read_checkpoint(str(out)).assign(other) == []
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs)), ours.path
    config = json.loads((out / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (2, 3, 0)
    card = (out / "README.md").read_text()
    assert "To be filled in" in card
    assert "license:" in card.split("---")[1]
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    assert len(tokenizer["model"]["vocab"]) == 340


def test_what_cannot_be_exported_is_one_message_and_writes_nothing(pushed, exported, tmp_path):
    base, _ = pushed
    out = tmp_path / "out"
    result = export(base / "int8", out)
    assert result.exit_code == 1
    assert "push.quantization" in result.output
    # Layer norms beside fewer key heads: no class has both.
    result = export(exported.base / "1", out)
    assert result.exit_code == 1
    assert "transformers has no class for a model of this shape" in result.output
    assert "gpt_neox cannot express kv_heads = 2" in result.output
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("kept")
    result = export(base, out)
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert (out / "mine").read_text() == "kept"
    result = export(tmp_path / "nowhere", tmp_path / "other")
    assert result.exit_code == 1
    assert "no pushed model in" in result.output


# Stand-ins for libraries that this environment lacks; benchmarks/numerics/exported.py has the true
# ones. The model is read by tokenmill, the tokenizer is that of the `tokenizers` library.
TORCH = """
import contextlib, numpy as np
float32, tensor, no_grad = np.float32, np.array, contextlib.nullcontext
"""
TRANSFORMERS = """
import json, os, numpy as np, tokenizers
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.model.build import build_model
__version__ = "9.9"
class Named:
    def __init__(self, **values): self.__dict__.update(values)
class Logits(np.ndarray):
    def numpy(self): return np.asarray(self)
class AutoModelForCausalLM:
    @classmethod
    def from_pretrained(cls, directory, dtype):
        if os.environ["FAKE"] == "unknown": raise ValueError("no such model type")
        checkpoint = read_checkpoint(directory)
        cls.model = build_model(checkpoint.shape, seed=0)
        checkpoint.assign(cls.model)
        return cls()
    def eval(self): return self
    def __call__(self, ids):
        ids = ids.astype(np.int32)
        logits = self.model(ids, np.ones_like(ids), np.arange(ids.shape[1], dtype=np.int32)[None])
        logits = np.asarray(logits) + 0.01 * (os.environ["FAKE"] == "logits")
        return Named(logits=logits.view(Logits))
class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, directory, split_special_tokens):
        found = tokenizers.Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
        found.encode_special_tokens = split_special_tokens
        def encode(text, add_special_tokens):
            text += "!" * (os.environ["FAKE"] == "ids")
            return Named(input_ids=found.encode(text, add_special_tokens=add_special_tokens).ids)
        return encode
"""


@pytest.mark.parametrize(
    ("fake", "code", "words"),
    [
        ("good", 0, "by transformers 9.9: "),
        ("logits", 1, "computes something else"),
        ("ids", 1, "AutoTokenizer gives other ids"),
        ("unknown", 1, "is written, but transformers cannot load it: ValueError: no such model"),
    ],
)
def test_where_transformers_is_installed_it_is_asked(
    pushed, tmp_path, monkeypatch, fake, code, words
):
    library = tmp_path / "library"
    library.mkdir()
    (library / "torch.py").write_text(TORCH)
    (library / "transformers.py").write_text(TRANSFORMERS)
    monkeypatch.syspath_prepend(str(library))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(library), os.getcwd()]))
    monkeypatch.setenv("FAKE", fake)
    result = export(pushed[0], tmp_path / "out")
    assert result.exit_code == code, result.output
    assert words in result.output
    if fake == "good":
        assert "the same ids for 4 of 4 texts" in result.output
