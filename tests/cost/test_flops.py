import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.catalog.chips import find_chip
from tokenmill.cost.flops import (
    flops_per_token,
    flops_per_token_6n,
    flops_per_token_palm,
    model_flops_utilization,
    run_flops,
    scores_and_values_flops,
    six_n,
    throughput,
    trained_flops_per_token,
)
from tokenmill.cost.published_runs import load_published_runs
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape

RUNS = {run.name: run for run in load_published_runs()}


def gpt(**change):
    fields = {
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
    return ModelShape(**{**fields, **change})


def test_design_example_bert_large_like():
    assert run_flops(flops_per_token_6n(3.4e8), 1.28e10) == pytest.approx(2.61e19, rel=1e-3)


def test_design_example_palm():
    flops = run_flops(flops_per_token_6n(5.4e11), 7.8e11)
    assert flops == pytest.approx(2.53e24, rel=2e-3)
    assert flops / 1e18 / 3600 == pytest.approx(702, abs=1)


def test_exact_count_by_hand():
    forward = flops_per_token(gpt()).forward_by_part()
    assert forward == {
        "attention_projections": 12 * 2 * 4 * 768 * 768,
        "attention_scores_values": 12 * 4 * 1024 * 768,
        "mlp": 12 * 2 * 2 * 768 * 3072,
        "head": 0,
        "output_projection": 2 * 768 * 50257,
    }


def test_training_is_three_forward_passes():
    count = flops_per_token(gpt())
    assert count.backward == 2 * count.forward
    assert count.training == 3 * count.forward
    assert count.training_hardware == count.training


def test_attention_term_of_training_is_12_l_t_d():
    count = flops_per_token(gpt())
    assert 3 * count.attention_scores_values == 12 * 12 * 1024 * 768
    half = flops_per_token(gpt(), causal_half=True)
    assert 3 * half.attention_scores_values == 6 * 12 * 1024 * 768
    assert half.mlp == count.mlp


def test_causal_half_needs_a_causal_model():
    with pytest.raises(ValueError, match="causal_half = True"):
        flops_per_token(gpt(causal=False), causal_half=True)


def test_recomputation():
    none = flops_per_token(gpt())
    selective = flops_per_token(gpt(), recompute="selective")
    full = flops_per_token(gpt(), recompute="full")
    assert selective.recomputed == none.attention_scores_values
    assert full.recomputed == none.forward - none.output_projection
    assert none.training == selective.training == full.training
    with pytest.raises(ValueError, match="none, selective, full"):
        flops_per_token(gpt(), recompute="some")


def test_6n_is_the_exact_count_without_scores_norms_and_biases():
    shape = gpt(use_bias=False, norm="rms")
    count = flops_per_token(shape)
    exact = count.training - 3 * count.attention_scores_values
    norms = 6 * shape.params_by_part()["norms"]
    assert six_n(shape).in_products - norms == pytest.approx(exact)
    assert six_n(shape).total == 6 * shape.params_total


def test_kv_groups_save_projections_but_no_scores():
    many, few = flops_per_token(gpt()), flops_per_token(gpt(kv_heads=1))
    assert few.attention_projections < many.attention_projections
    assert few.attention_scores_values == many.attention_scores_values


def test_palm_mfu_is_46_2_percent():
    # 238.3K tokens/s of 6144 chips: PaLM, sec. 4.1 and appendix B (not in the CSV). Its heads are
    # 256 wide, not d_model / heads = 384, so the shape's own count would be too high.
    run = RUNS["PaLM 540B"]
    per_token = flops_per_token_palm(
        params=run.params_total,
        layers=run.layers,
        heads=run.heads,
        head_dim=256,
        sequence_length=run.sequence_length,
    )
    machine = {
        "chips": run.chips,
        "peak_flops_per_second": find_chip("tpu-v4").peak_flops_per_second,
    }
    mfu = model_flops_utilization(tokens_per_second=238.3e3, flops_per_token=per_token, **machine)
    assert mfu == pytest.approx(0.462, abs=5e-4)
    assert "46.2%" in run.reported_utilization
    plain = model_flops_utilization(
        tokens_per_second=238.3e3, flops_per_token=flops_per_token_6n(run.params_total), **machine
    )
    assert plain == pytest.approx(0.457, abs=5e-4)  # "45.7% without self-attention"


def test_megatron_turing_iteration_time_gives_126_tflops():
    # Its count has full recomputation of layers, none of logits (Narayanan et al. 2021, eq. 3).
    run = RUNS["MT-NLG 530B"]
    shape = gpt(
        layers=run.layers,
        d_model=run.d_model,
        heads=run.heads,
        d_ff=run.d_ff,
        vocab_size=run.vocab_size,
        sequence_length=run.sequence_length,
    )
    tokens = 1920 * run.sequence_length
    hardware = flops_per_token(shape, recompute="full").training_hardware
    for chips, seconds, tflops in ((2240, 60.1, 126), (2800, 50.2, 121), (3360, 44.4, 113)):
        got = run_flops(hardware, tokens) / seconds / chips / 1e12
        assert got == pytest.approx(tflops, rel=0.01)


@pytest.mark.parametrize(
    ("name", "tokens_per_second", "kv_heads", "mfu"),
    [("OLMo 2 32B", 1800, 8, (0.37, 0.39)), ("OLMo 2 7B", 9850, None, (0.47, 0.48))],
)
def test_olmo_2_throughput_gives_its_published_mfu(name, tokens_per_second, kv_heads, mfu):
    run = RUNS[name]
    shape = ModelShape(
        layers=run.layers,
        d_model=run.d_model,
        heads=run.heads,
        kv_heads=kv_heads,
        d_ff=run.d_ff,
        vocab_size=run.vocab_size,
        sequence_length=run.sequence_length,
        positions="rope",
        norm="rms",
        use_bias=False,
        mlp="swiglu",
        tie_embeddings=False,
    )
    got = model_flops_utilization(
        tokens_per_second=tokens_per_second,
        flops_per_token=flops_per_token(shape).training,
        chips=1,
        peak_flops_per_second=run.peak_flops_per_second,
    )
    assert mfu[0] <= got <= mfu[1]


def test_scores_need_positive_sizes():
    with pytest.raises(ValueError, match="sequence_length = 0"):
        scores_and_values_flops(1, 0, 8)
    with pytest.raises(ValueError, match="params = -1"):
        flops_per_token_6n(-1)


@given(
    mfu=st.floats(0.01, 1),
    per_token=st.floats(1e6, 1e13),
    chips=st.integers(1, 20000),
    peak=st.floats(1e10, 1e16),
)
def test_throughput_and_mfu_are_inverse(mfu, per_token, chips, peak):
    machine = {"flops_per_token": per_token, "chips": chips, "peak_flops_per_second": peak}
    rate = throughput(mfu=mfu, **machine)
    assert model_flops_utilization(tokens_per_second=rate, **machine) == pytest.approx(mfu)


@given(params=st.floats(1, 1e13), tokens=st.floats(0, 1e14), more=st.floats(1.01, 100))
def test_run_flops_grow_with_params_and_tokens(params, tokens, more):
    base = run_flops(flops_per_token_6n(params), tokens)
    assert run_flops(flops_per_token_6n(params * more), tokens) >= base
    assert run_flops(flops_per_token_6n(params), tokens * more) >= base


@given(
    layers=st.integers(1, 6),
    length=st.integers(1, 4096),
    recompute=st.sampled_from(["none", "full"]),
)
def test_exact_count_is_linear_in_layers(layers, length, recompute):
    def layer_flops(n):
        count = flops_per_token(gpt(layers=n, sequence_length=length), recompute=recompute)
        return count.training_hardware - 3 * count.output_projection

    assert layer_flops(2 * layers) == pytest.approx(2 * layer_flops(layers))


@pytest.mark.parametrize(
    ("length", "computed"),
    [(128, 1.0), (255, 1.0), (256, 3 / 4), (384, 2 / 3), (512, 5 / 8), (1024, 9 / 16)],
)
def test_masked_blocks_of_scores_are_not_computed(length, computed):
    shape = gpt(sequence_length=length, layers=2)
    count = flops_per_token(shape)
    scores = 3 * count.attention_scores_values
    assert count.training - trained_flops_per_token(shape) == pytest.approx(scores * (1 - computed))
    assert trained_flops_per_token(shape, dropout=True) == count.training
    both_sides = gpt(sequence_length=length, causal=False)
    assert trained_flops_per_token(both_sides) == flops_per_token(both_sides).training


LORA = LoraConfig(rank=8, alpha=16.0)


def test_frozen_matrices_have_one_product_in_the_backward_pass():
    whole, adapted = flops_per_token(gpt()), flops_per_token(gpt(), lora=LORA)
    parts = whole.forward_by_part()
    frozen = sum(parts.values()) - parts["attention_scores_values"]
    assert adapted.adapters == 2 * LORA.params(gpt())
    assert adapted.forward == whole.forward + adapted.adapters
    assert adapted.training == whole.training - frozen + 3 * adapted.adapters
    assert adapted.forward_by_part() == {**parts, "adapters": adapted.adapters}
    full = flops_per_token(gpt(), lora=LORA, recompute="full")
    assert full.recomputed == adapted.forward - adapted.head - adapted.output_projection


def test_a_classifiers_head_is_trained_beside_adapters():
    shape = gpt(causal=False, head="classifier", classes=2)
    whole, adapted = flops_per_token(shape), flops_per_token(shape, lora=LORA)
    assert adapted.frozen == whole.attention_projections + whole.mlp
    # 6 for each trained parameter, 4 for the others.
    rule, plain = six_n(shape, LORA), six_n(shape)
    head = shape.params_by_part()["head"]
    assert rule.total == plain.total + 6 * LORA.params(shape) - 2 * (shape.params_total - head)
