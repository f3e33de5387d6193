"""Models of ours as checkpoints: what is written says all of the model, or nothing is written."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenmill.checkpoints import writing
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.checkpoints.writing import find_form, write_checkpoint
from tokenmill.errors import TokenmillError
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape

SIZES = {
    "layers": 2, "d_model": 32, "heads": 4, "d_ff": 48, "vocab_size": 96, "sequence_length": 24,
}  # fmt: skip
ROPE = {**SIZES, "positions": "rope", "norm": "rms", "use_bias": False, "mlp": "swiglu"}
BERT = {
    **SIZES, "positions": "learned", "norm": "layer", "use_bias": True, "mlp": "gelu_exact",
    "tie_embeddings": True, "causal": False, "norm_position": "post", "type_vocab_size": 2,
}  # fmt: skip
SHAPES = {
    "GPTNeoXForCausalLM": ModelShape(
        **SIZES, positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
        rope_base=500.0,
    ),
    "GPT2LMHeadModel": ModelShape(
        **SIZES, positions="learned", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=False
    ),
    "LlamaForCausalLM": ModelShape(
        **ROPE, tie_embeddings=False, kv_heads=2, rope_scaling="llama3", rope_factor=8.0,
        rope_original_length=16, norm_epsilon=1e-5,
    ),
    "Qwen2ForCausalLM": ModelShape(**ROPE, tie_embeddings=True, kv_heads=1, qkv_bias=True),
    "Qwen3ForCausalLM": ModelShape(**ROPE, tie_embeddings=True, qk_norm=True, head_dim=16),
    "MixtralForCausalLM": ModelShape(
        **ROPE, tie_embeddings=False, kv_heads=2, experts=4, experts_per_token=2
    ),
    "Qwen2MoeForCausalLM": ModelShape(
        **ROPE, tie_embeddings=True, kv_heads=1, qkv_bias=True, experts=4, experts_per_token=3,
        expert_d_ff=16, shared_experts=2, shared_expert_gate=True, normalize_gates=False,
        first_dense_layers=1,
    ),
    "Qwen3MoeForCausalLM": ModelShape(
        **ROPE, tie_embeddings=True, qk_norm=True, head_dim=16, experts=4, experts_per_token=2,
        moe_every=2,
    ),
    "BertForMaskedLM": ModelShape(**BERT, head="mlm"),
    "BertForSequenceClassification": ModelShape(**BERT, head="classifier", classes=3),
}  # fmt: skip


def weights_of(model):
    return {v.path.split("/", 1)[1]: np.asarray(v) for v in model.trainable_variables}


@pytest.mark.parametrize("architecture", SHAPES)
def test_what_is_written_is_read_back_bit_for_bit(architecture, tmp_path):
    shape = SHAPES[architecture]
    weights = weights_of(build_model(shape, seed=1))
    write_checkpoint(str(tmp_path), shape, weights.__getitem__, "float32")
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [architecture]
    other = build_model(shape, seed=2)
    assert read_checkpoint(str(tmp_path)).assign(other) == []
    for path, values in weights_of(other).items():
        assert np.array_equal(values, weights[path]), path


def test_large_models_are_cut_into_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_BYTES", 20_000)
    shape = SHAPES["LlamaForCausalLM"]
    weights = weights_of(build_model(shape, seed=1))
    names = write_checkpoint(str(tmp_path), shape, weights.__getitem__, "float32")
    shards = [name for name in names if name.endswith(".safetensors")]
    assert len(shards) > 2
    # Headers and one tensor that alone is larger.
    assert max((tmp_path / name).stat().st_size for name in shards) < 24_000
    other = build_model(shape, seed=2)
    read_checkpoint(str(tmp_path)).assign(other)
    assert all(np.array_equal(v, weights[p]) for p, v in weights_of(other).items())


def test_weights_are_rounded_to_the_type_that_is_asked_for(tmp_path):
    shape = SHAPES["GPTNeoXForCausalLM"]
    weights = weights_of(build_model(shape, seed=1))
    write_checkpoint(str(tmp_path), shape, weights.__getitem__, "bfloat16")
    checkpoint = read_checkpoint(str(tmp_path))
    assert checkpoint.dtypes == ("bfloat16",)
    other = build_model(shape, seed=2)
    checkpoint.assign(other)
    for path, values in weights_of(other).items():
        np.testing.assert_allclose(values, weights[path], rtol=2**-8, atol=1e-6)


@given(
    st.fixed_dictionaries(
        {
            "positions": st.sampled_from(["rope", "learned"]),
            "norm": st.sampled_from(["layer", "rms"]),
            "mlp": st.sampled_from(["gelu", "gelu_exact", "swiglu"]),
            "use_bias": st.booleans(),
            "qkv_bias": st.sampled_from([None, True, False]),
            "qk_norm": st.booleans(),
            "tie_embeddings": st.booleans(),
            "kv_heads": st.sampled_from([None, 1, 2, 4]),
            "head_dim": st.sampled_from([None, 8, 16]),
            "causal": st.booleans(),
            "norm_position": st.sampled_from(["pre", "post"]),
            "type_vocab_size": st.sampled_from([0, 2]),
            "norm_epsilon": st.sampled_from([None, 1e-5]),
            "rope_base": st.sampled_from([1e4, 5e5]),
        }
    )
)
@settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=400)
def test_a_shape_is_written_as_a_family_that_reads_the_same_or_refused(options):
    head = "lm" if options["causal"] else "mlm"
    try:
        shape = ModelShape(**SIZES, **options, head=head)
    except ValueError:
        return
    try:
        form = find_form(shape)
    except TokenmillError as error:
        refused = error.message
    else:
        # Its tensors are all of our variables, each once.
        paths = [p for p, s in form.family.sources(shape) if s.head in ("", shape.head)]
        assert sorted(paths) == sorted(weights_of(build_model(shape, seed=0)))
        return
    for family in ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "bert"):
        assert f"{family} cannot express" in refused


def test_a_shape_without_a_class_is_refused_by_what_each_lacks(tmp_path):
    shape = ModelShape(**{**ROPE, "norm": "layer"}, tie_embeddings=True)
    with pytest.raises(TokenmillError, match="llama cannot express norm = layer"):
        write_checkpoint(str(tmp_path), shape, lambda _: np.zeros(1), "float32")
    assert list(tmp_path.iterdir()) == []
