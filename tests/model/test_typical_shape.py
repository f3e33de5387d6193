import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.cost.flops import flops_per_token, flops_per_token_palm, six_n
from tokenmill.cost.memory import estimate_memory
from tokenmill.model.shape import ModelShape
from tokenmill.model.typical_shape import PlannedShape, typical_shape

FIELDS = {
    "layers": 4,
    "d_model": 512,
    "heads": 8,
    "d_ff": 2048,
    "vocab_size": 32000,
    "sequence_length": 256,
    "positions": "rope",
    "norm": "rms",
    "use_bias": False,
    "mlp": "swiglu",
    "tie_embeddings": True,
}


def planned(**change):
    return PlannedShape(**{**FIELDS, **change})


@given(
    layers=st.integers(1, 8),
    heads=st.sampled_from([1, 2, 4, 8]),
    head=st.sampled_from([2, 32, 64]),
    kv=st.sampled_from([1, None]),
    mlp=st.sampled_from(["gelu", "swiglu"]),
    norm=st.sampled_from(["rms", "layer"]),
    bias=st.booleans(),
    tied=st.booleans(),
    positions=st.sampled_from(["rope", "learned"]),
)
def test_without_extras_it_is_a_model_shape(
    layers, heads, head, kv, mlp, norm, bias, tied, positions
):
    fields = {
        **FIELDS,
        "layers": layers,
        "d_model": heads * head,
        "heads": heads,
        "kv_heads": kv,
        "mlp": mlp,
        "norm": norm,
        "use_bias": bias,
        "tie_embeddings": tied,
        "positions": positions,
    }
    ours, plain = PlannedShape(**fields), ModelShape(**fields)
    assert ours.params_by_part() == plain.params_by_part()
    assert ours.params_active == plain.params_active == plain.params_total
    assert flops_per_token(ours) == flops_per_token(plain)
    memory = {"batch_per_device": 2, "precision": "float32"}
    assert estimate_memory(ours, **memory) == estimate_memory(plain, **memory)


def test_wide_heads_change_attention_only():
    wide, usual = planned(head_dim=128), planned()
    assert wide.params_by_part()["attention"] == 2 * usual.params_by_part()["attention"]
    assert wide.params_by_part()["mlp"] == usual.params_by_part()["mlp"]
    palm = flops_per_token_palm(
        params=wide.params_in_products, layers=4, heads=8, head_dim=128, sequence_length=256
    )
    norms = 6 * wide.params_by_part()["norms"]
    assert flops_per_token(wide).training == palm - norms


def test_heads_of_any_width_need_not_divide_d_model():
    assert planned(heads=6, kv_heads=2, head_dim=100).kv_dim == 200
    with pytest.raises(ValueError, match="heads"):
        planned(heads=6)


def test_mixtral_8x7b():
    # Jiang et al. 2024 ("Mixtral of Experts"): 46.7e9 parameters, 12.9e9 active.
    shape = planned(
        layers=32,
        d_model=4096,
        heads=32,
        kv_heads=8,
        d_ff=14336,
        vocab_size=32000,
        tie_embeddings=False,
        experts=8,
        experts_per_token=2,
    )
    assert shape.params_total == pytest.approx(46.7e9, rel=0.003)
    assert shape.params_active == pytest.approx(12.9e9, rel=0.003)
    active = flops_per_token(shape).training - 3 * flops_per_token(shape).attention_scores_values
    embedding = shape.params_by_part()["token_embedding"]
    assert active == pytest.approx(6 * (shape.params_active - embedding), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "params"),
    [
        # Raffel et al. 2020 ("T5"): base 220e6, large 770e6, 3B 2.8e9, 11B 11e9 (11.3e9).
        ({"layers": 12, "d_model": 768, "heads": 12, "d_ff": 3072}, 222.9e6),
        ({"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 4096}, 737.7e6),
        ({"layers": 24, "d_model": 1024, "heads": 32, "d_ff": 16384}, 2.85e9),
        ({"layers": 24, "d_model": 1024, "heads": 128, "d_ff": 65536}, 11.3e9),
    ],
)
def test_t5(change, params):
    head = 64 if change["d_model"] == 768 or change["heads"] == 16 else 128
    shape = planned(
        **change, head_dim=head, mlp="gelu", vocab_size=32128, encoder_layers=change["layers"]
    )
    assert shape.params_total == pytest.approx(params, rel=0.01)
    # A token passes one of the two stacks: 6·N counts nearly twice.
    assert flops_per_token(shape).training < 0.65 * six_n(shape).total


def test_an_encoder_that_reads_nearly_all_tokens_costs_as_an_encoder():
    both = planned(encoder_layers=4, encoder_token_share=0.999999)
    alone = planned(causal=False)
    assert flops_per_token(both).mlp == pytest.approx(flops_per_token(alone).mlp, rel=1e-5)


def test_relative_positions_add_a_matrix_a_layer():
    more = planned(relative_positions=True)
    assert more.params_total - planned().params_total == 4 * 512 * 512
    assert more.attention_products - planned().attention_products == 4 * 512 * 512


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experts_per_token": 2}, "experts_per_token = 2"),
        ({"experts": 0}, "experts = 0"),
        ({"head_dim": 0}, "head_dim = 0"),
        ({"encoder_layers": -1}, "encoder_layers = -1"),
        ({"encoder_token_share": 0.0}, "encoder_token_share = 0.0"),
        ({"kv_heads": 3, "head_dim": 64}, "kv_heads = 3"),
    ],
)
def test_a_wrong_field_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        planned(**change)


@given(st.floats(3e7, 1e13))
def test_a_typical_shape_has_about_the_parameters(params):
    assert typical_shape(params).params_total == pytest.approx(params, rel=0.12)


@pytest.mark.parametrize(
    ("params", "layers", "width"), [(125e6, 12, 768), (6.7e9, 32, 4096), (175e9, 96, 12288)]
)
def test_a_typical_shape_is_gpt_3s(params, layers, width):
    shape = typical_shape(params)
    assert (shape.layers, shape.d_model) == (layers, width)


@given(
    layers=st.integers(12, 120),
    width=st.sampled_from([1024, 2048, 4096, 8192, 16384]),
    length=st.integers(128, 4096),
    vocab=st.integers(16_000, 64_000),
    tied=st.booleans(),
)
def test_6n_is_close_to_the_exact_count_in_its_domain(layers, width, length, vocab, tied):
    """The domain: T at most 2·d and the embedding at most a fifth of the parameters.

    Then scores add at most T/(6·d) = a third to the products, and look-ups take a fifth off.
    """
    shape = planned(
        layers=layers,
        d_model=width,
        heads=width // 128,
        d_ff=4 * width,
        mlp="gelu",
        vocab_size=vocab,
        sequence_length=min(length, 2 * width),
        tie_embeddings=tied,
    )
    if vocab * width > shape.params_total / 5:
        return
    ratio = flops_per_token(shape).training / six_n(shape).total
    assert 0.79 <= ratio <= 1 + shape.sequence_length / (6 * width) + 1e-9
