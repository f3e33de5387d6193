"""The files of adapters, read by what PEFT's documentation says of them and nothing of ours.

PEFT 0.21.2 itself computed the same logits from them to 1e-6 for all these families
(benchmarks/numerics/adapters_in_peft.py).
"""

import json
import re

import numpy as np
import pytest
import safetensors.numpy

from tokenmill.export.adapter_files import family_of, write_adapter
from tokenmill.model.build import build_model, merge_adapters
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape

COMMON = {"layers": 2, "d_model": 16, "heads": 2, "d_ff": 24, "vocab_size": 40,
          "sequence_length": 8}  # fmt: skip
LLAMA = {"positions": "rope", "norm": "rms", "use_bias": False, "mlp": "swiglu", "kv_heads": 1,
         "tie_embeddings": False}  # fmt: skip
GPT2 = {"positions": "learned", "norm": "layer", "use_bias": True, "mlp": "gelu",
        "tie_embeddings": True}  # fmt: skip
NEOX = {**GPT2, "positions": "rope"}
BERT = {**GPT2, "causal": False, "norm_position": "post", "type_vocab_size": 2}
SHAPES = {
    "llama": ModelShape(**COMMON, **LLAMA),
    "qwen2": ModelShape(**COMMON, **LLAMA, qkv_bias=True),
    "qwen3": ModelShape(**COMMON, **LLAMA, head_dim=12, qk_norm=True),
    "gpt2": ModelShape(**COMMON, **GPT2),
    "gpt_neox": ModelShape(**COMMON, **NEOX),
    "bert": ModelShape(**COMMON, **BERT, head="classifier", classes=3),
}


def moved_model(shape, targets):
    model = build_model(shape, 3, lora=LoraConfig(rank=2, alpha=6.0, targets=targets))
    chance = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(chance.normal(0, 0.2, variable.shape))
    return model


def written(model, directory):
    write_adapter(model, str(directory), "the/base")
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = safetensors.numpy.load((directory / "adapter_model.safetensors").read_bytes())
    return config, tensors


def added(config, tensors):
    """What each module's weight has added to it, [out, in]."""
    found = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
            rank, alpha = config["r"], config["lora_alpha"]
            for suffix, special in config["rank_pattern"].items():
                if re.match(rf"(.*\.)?({suffix})$", module):
                    rank, alpha = special, config["alpha_pattern"][suffix]
            assert len(a) == rank
            assert any(re.match(rf"(.*\.)?({x})$", module) for x in config["target_modules"])
            found[module] = alpha / rank * b @ a
    return found


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("targets", [None, ("q", "v", "down"), ("k",)])
def test_the_files_hold_what_is_merged_under_the_names_of_the_family(name, targets, tmp_path):
    shape = SHAPES[name]
    model = moved_model(shape, targets)
    config, tensors = written(model, tmp_path)
    family = family_of(shape)
    assert family.name == name
    changes = added(config, tensors)
    before = {v.path.split("/", 1)[1]: v.numpy() for v in model.base_variables}
    after = {v.path.split("/", 1)[1]: v.numpy() for v in merge_adapters(model).variables}
    for path, source in family.sources(shape):
        if not path.endswith("kernel") or ("attention" not in path and "mlp" not in path):
            continue
        parts = source.laid_out_there(after[path] - before[path])
        for tensor, change in parts.items():
            there = changes.pop(family.prefix + tensor.removesuffix(".weight"), None)
            expected = np.zeros(change.shape) if there is None else there
            expected = expected if source.transposed or there is None else expected.T
            np.testing.assert_allclose(change, expected, atol=1e-6)
    assert not changes
    assert any((after[path] != before[path]).any() for path in after)


def test_nothing_else_is_hit_by_the_target_modules(tmp_path):
    # "output.dense" would be attention's as well.
    config, _ = written(moved_model(SHAPES["bert"], ("down",)), tmp_path)
    assert config["target_modules"] == [f"bert.encoder.layer.{i}.output.dense" for i in range(2)]
    config, _ = written(moved_model(SHAPES["llama"], ("q", "v")), tmp_path)
    assert config["target_modules"] == ["self_attn.q_proj", "self_attn.v_proj"]


def test_a_classifiers_head_is_saved_beside(tmp_path):
    model = moved_model(SHAPES["bert"], None)
    config, tensors = written(model, tmp_path)
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["classifier", "pooler"])
    head = {name: value for name, value in tensors.items() if "lora" not in name}
    np.testing.assert_array_equal(
        head["base_model.model.classifier.weight"], model.classifier.kernel.numpy().T
    )
    np.testing.assert_array_equal(
        head["base_model.model.bert.pooler.dense.bias"], model.pooler.bias.numpy()
    )
    assert len(head) == 4


def test_another_shape_has_names_of_its_own_and_the_same_bytes_twice(tmp_path):
    shape = ModelShape(**COMMON, **{**LLAMA, "mlp": "gelu"})
    assert family_of(shape) is None
    model = moved_model(shape, ("q", "down"))
    config, tensors = written(model, tmp_path / "a")
    assert config["target_modules"] == ["attention.q", "mlp.down"]
    assert "base_model.model.layer1.attention.q.lora_A.weight" in tensors
    written(model, tmp_path / "b")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
