import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.model.shape import ModelShape

GPT2_SMALL = {
    "layers": 12,
    "d_model": 768,
    "heads": 12,
    "d_ff": 3072,
    "vocab_size": 50257,
    "sequence_length": 1024,
    "positions": "learned",
    "norm": "layer",
    "use_bias": True,
    "mlp": "gelu",
    "tie_embeddings": True,
}
LLAMA_2_7B = {
    "layers": 32,
    "d_model": 4096,
    "heads": 32,
    "d_ff": 11008,
    "vocab_size": 32000,
    "sequence_length": 4096,
    "positions": "rope",
    "norm": "rms",
    "use_bias": False,
    "mlp": "swiglu",
    "tie_embeddings": False,
}


def test_gpt2_small_is_exact():
    shape = ModelShape(**GPT2_SMALL)
    assert shape.params_total == 124_439_808
    assert shape.params_by_part() == {
        "token_embedding": 38_597_376,
        "position_embedding": 786_432,
        "type_embedding": 0,
        "attention": 12 * 4 * (768 * 768 + 768),
        "mlp": 12 * (2 * 768 * 3072 + 3072 + 768),
        "norms": 25 * 2 * 768,
        "head": 0,
        "output_projection": 0,
    }


def test_llama_2_7b_is_exact():
    shape = ModelShape(**LLAMA_2_7B)
    assert shape.params_total == 6_738_415_616
    assert shape.params_by_part()["position_embedding"] == 0


def test_swiglu_biases_and_grouped_queries():
    shape = ModelShape(**{**LLAMA_2_7B, "use_bias": True, "kv_heads": 8})
    parts = shape.params_by_part()
    kv = 8 * 128
    assert parts["attention"] == 32 * (2 * 4096**2 + 2 * 4096 * kv + 2 * 4096 + 2 * kv)
    assert parts["mlp"] == 32 * (3 * 4096 * 11008 + 2 * 11008 + 4096)


def test_mistral_nemo_is_exact():
    """12,247,782,400 parameters: heads of 128 features, though d_model / heads is 160."""
    shape = ModelShape(
        **{
            **LLAMA_2_7B,
            "layers": 40,
            "d_model": 5120,
            "d_ff": 14336,
            "kv_heads": 8,
            "head_dim": 128,
            "vocab_size": 131072,
        }
    )
    assert (shape.attention_width, shape.kv_dim) == (4096, 1024)
    assert shape.params_total == 12_247_782_400


def test_qwen2_and_qwen3_are_exact():
    """494,032,768 and 596,049,920 parameters (Qwen2.5-0.5B, Qwen3-0.6B as released)."""
    qwen2 = {
        **LLAMA_2_7B,
        "layers": 24,
        "d_model": 896,
        "heads": 14,
        "kv_heads": 2,
        "d_ff": 4864,
        "vocab_size": 151936,
        "tie_embeddings": True,
        "qkv_bias": True,
    }
    qwen3 = {
        **qwen2,
        "layers": 28,
        "d_model": 1024,
        "heads": 16,
        "kv_heads": 8,
        "head_dim": 128,
        "d_ff": 3072,
        "qkv_bias": None,
        "qk_norm": True,
    }
    assert ModelShape(**qwen2).params_total == 494_032_768
    assert ModelShape(**qwen3).params_total == 596_049_920


def test_a_head_of_the_usual_width_changes_nothing():
    usual, said = ModelShape(**LLAMA_2_7B), ModelShape(**LLAMA_2_7B, head_dim=128)
    assert usual.params_by_part() == said.params_by_part()
    assert usual.head_width == said.head_width == 128


def test_tying_saves_one_embedding_but_no_products():
    untied = ModelShape(**LLAMA_2_7B)
    tied = ModelShape(**{**LLAMA_2_7B, "tie_embeddings": True})
    assert untied.params_total - tied.params_total == 32000 * 4096
    assert untied.params_in_products == tied.params_in_products
    assert untied.params_non_embedding == tied.params_non_embedding


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": 0}, "layers = 0"),
        ({"layers": True}, "layers = True"),
        ({"d_ff": -1}, "d_ff = -1"),
        ({"vocab_size": 1.5}, "vocab_size = 1.5"),
        ({"heads": 7}, "divisor of d_model = 768"),
        ({"kv_heads": 5}, "divisor of heads = 12"),
        ({"kv_heads": 0}, "kv_heads = 0"),
        ({"positions": "alibi"}, "one of rope, learned"),
        ({"norm": "batch"}, "one of layer, rms"),
        ({"mlp": "relu"}, "one of gelu, gelu_exact, swiglu"),
        ({"use_bias": "no"}, "use_bias = 'no'"),
        ({"positions": "rope", "heads": 256}, "even d_model / heads"),
        ({"positions": "rope", "head_dim": 5}, "head_dim = 5: expected an even number"),
        ({"head_dim": 0}, "head_dim = 0"),
        ({"qkv_bias": 1}, "qkv_bias = 1"),
        ({"qk_norm": None}, "qk_norm = None"),
        ({"norm_epsilon": 0.0}, "norm_epsilon = 0.0"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon = nan"),
        ({"rope_base": True}, "rope_base = True"),
        ({"rope_base": float("inf")}, "rope_base = inf"),
        ({"rope_scaling": "yarn"}, "one of none, linear, llama3"),
        ({"rope_factor": 8.0}, "expected 1 where rope_scaling = 'none'"),
        ({"rope_scaling": "linear", "rope_factor": 8.0}, "'none' where positions = 'learned'"),
        ({"positions": "rope", "rope_scaling": "linear", "rope_factor": 0.5}, "at least 1"),
        (
            {"positions": "rope", "rope_scaling": "llama3", "rope_low_frequency_factor": 4.0},
            "less than rope_high_frequency_factor = 4.0",
        ),
        ({"rope_original_length": 0}, "rope_original_length = 0"),
    ],
)
def test_a_wrong_field_is_named(change, words):
    with pytest.raises(ValueError, match="model") as caught:
        ModelShape(**{**GPT2_SMALL, **change})
    assert words in str(caught.value)
    assert "; c" in str(caught.value) or "; w" in str(caught.value)  # says what to do


@given(
    layers=st.integers(1, 8),
    heads=st.sampled_from([2, 4, 8]),
    groups=st.sampled_from([1, 2]),
    width=st.sampled_from([2, 16, 64]),
    bias=st.booleans(),
    mlp=st.sampled_from(["gelu", "swiglu"]),
    tied=st.booleans(),
)
def test_parts_add_up_and_grow(layers, heads, groups, width, bias, mlp, tied):
    base = {
        **GPT2_SMALL,
        "layers": layers,
        "d_model": heads * width,
        "heads": heads,
        "kv_heads": heads // groups,
        "use_bias": bias,
        "mlp": mlp,
        "tie_embeddings": tied,
    }
    shape = ModelShape(**base)
    parts = shape.params_by_part()
    assert shape.params_total == sum(parts.values())
    assert min(parts.values()) >= 0
    assert shape.head_width == width
    deeper = ModelShape(**{**base, "layers": layers + 1})
    assert deeper.params_non_embedding > shape.params_non_embedding


def test_importing_the_arithmetic_loads_nothing_heavy():
    code = (
        "import sys, tokenmill.model.shape, tokenmill.cost.flops, tokenmill.cost.memory, "
        "tokenmill.cost.pricing, tokenmill.cost.scaling, data.catalog.chips\n"
        "heavy = {'tensorflow', 'tfx', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
