import dataclasses
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.catalog.chips import find_chip
from tokenmill.cost.devices import CPU_PARALLELISM
from tokenmill.cost.memory import (
    estimate_memory,
    kv_cache_bytes,
    layer_activations,
    xla_layer_activations,
)
from tokenmill.model.lora import LORA_TARGETS, LoraConfig
from tokenmill.model.shape import ModelShape


def shape(**change):
    fields = {
        "layers": 4,
        "d_model": 512,
        "heads": 8,
        "d_ff": 2048,
        "vocab_size": 32000,
        "sequence_length": 256,
        "positions": "rope",
        "norm": "rms",
        "use_bias": False,
        "mlp": "gelu",
        "tie_embeddings": True,
    }
    return ModelShape(**{**fields, **change})


@given(
    batch=st.integers(1, 64),
    length=st.integers(1, 4096),
    heads=st.sampled_from([1, 2, 8, 16]),
    head_dim=st.sampled_from([2, 32, 64, 128]),
)
def test_layer_follows_korthikanti(batch, length, heads, head_dim):
    h = heads * head_dim
    model = shape(d_model=h, heads=heads, d_ff=4 * h, sequence_length=length)
    sbh = length * batch * h

    def layer(recompute):
        return layer_activations(
            model, batch=batch, precision="mixed_bfloat16", recompute=recompute
        ).total

    assert layer("none") == 34 * sbh + 5 * heads * length**2 * batch
    assert layer("selective") == 34 * sbh
    assert layer("full") == 2 * sbh


def test_norms_of_q_and_k_keep_their_inputs():
    plain = shape(d_model=768, heads=12, kv_heads=4, head_dim=128)
    normed = dataclasses.replace(plain, qk_norm=True)
    kept = [
        layer_activations(s, batch=2, precision="float32", dropout=False).total
        for s in (plain, normed)
    ]
    assert kept[1] - kept[0] == 4 * 2 * plain.sequence_length * (12 + 4) * 128


def test_experts_keep_rows_with_their_padding():
    dense = shape(mlp="swiglu")
    sparse = dataclasses.replace(dense, experts=8, experts_per_token=2, expert_d_ff=1024)
    positions = 4 * dense.sequence_length

    def kept(model, parts=1):
        return layer_activations(
            model, batch=4, precision="float32", dropout=False, parts=parts
        ).features

    # 2,048 assignments in blocks of 128 rows, half of what an expert gets; room for 8 more blocks.
    rows = 2048 + 8 * 128
    of_experts = 4 * (rows * (512 + 2 * 1024) + positions * 2 * 512)
    assert kept(sparse) == kept(dense) - 4 * positions * 4 * 2048 + of_experts
    # Of four parts each has room for 8 blocks of 32 rows more than its tokens fill.
    assert kept(sparse, 4) == kept(sparse)
    # Half of the layers are dense.
    half = dataclasses.replace(sparse, moe_every=2)
    assert 2 * kept(half) == kept(dense) + kept(sparse)
    assert kept(dense, 4) == kept(dense)


def test_gpt3_example_of_korthikanti():
    # Section 5: for GPT-3, 5·a·s/h = 80, so the scores outweigh the other 34.
    model = shape(d_model=12288, heads=96, d_ff=4 * 12288, sequence_length=2048)
    kept = layer_activations(model, batch=1, precision="mixed_float16").total
    assert kept / (2048 * 12288) == 34 + 80


def test_bytes_per_parameter_by_precision():
    per_parameter = {"float32": 16, "bfloat16": 14, "mixed_bfloat16": 18, "mixed_float16": 18}
    for precision, expected in per_parameter.items():
        parts = estimate_memory(shape(), batch_per_device=1, precision=precision)
        static = parts.weights + parts.compute_copy + parts.gradients + parts.optimizer
        assert static == expected * shape().params_total


def test_mixed_keeps_float32_weights_and_halves_activations():
    full = estimate_memory(shape(), batch_per_device=8, precision="float32", dropout=False)
    mixed = estimate_memory(shape(), batch_per_device=8, precision="mixed_bfloat16", dropout=False)
    assert mixed.weights == full.weights == 4 * shape().params_total
    assert 2 * mixed.activations == full.activations
    # Probabilities are float32 in any precision, and 16-bit ones come beside them.
    assert full.attention < mixed.attention + full.activations - mixed.activations
    assert mixed.logits == full.logits - 2 * 8 * 256 * 32000
    assert mixed.checkpoint_bytes == 12 * shape().params_total


def test_parts_add_up():
    parts = estimate_memory(shape(), batch_per_device=2, precision="float32", recompute="selective")
    assert parts.total == sum(parts.by_part().values())
    assert set(parts.by_part()) == {field.name for field in dataclasses.fields(parts)}
    assert parts.logits == 512 * 32000 * (8 + 4) + 512 * shape().d_model * 4
    assert parts.attention == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("dropout", [True, False])
def test_recomputation_saves(precision, mlp, dropout):
    def total(recompute):
        return estimate_memory(
            shape(mlp=mlp, kv_heads=2),
            batch_per_device=8,
            precision=precision,
            recompute=recompute,
            dropout=dropout,
        ).total

    assert total("none") > total("selective") > total("full")


@given(batch=st.integers(1, 100))
def test_weights_do_not_depend_on_the_batch_and_activations_do(batch):
    one = estimate_memory(shape(), batch_per_device=1, precision="float32")
    many = estimate_memory(shape(), batch_per_device=batch, precision="float32")
    assert (many.weights, many.optimizer) == (one.weights, one.optimizer)
    assert many.activations == batch * one.activations
    assert many.attention == batch * one.attention
    assert one.logits <= many.logits <= batch * one.logits


def test_fits():
    small = estimate_memory(shape(), batch_per_device=8, precision="float32")
    assert small.fits(find_chip("rtx-3090"))
    large = estimate_memory(
        shape(layers=32, d_model=4096, heads=32, d_ff=16384),
        batch_per_device=1,
        precision="mixed_bfloat16",
    )
    assert not large.fits(find_chip("a100-sxm4-80gb"))


def test_fits_needs_known_memory_and_a_share():
    small = estimate_memory(shape(), batch_per_device=1, precision="float32")
    with pytest.raises(ValueError, match="memory_bytes of cpu-vcpu"):
        small.fits(find_chip("cpu-vcpu"))
    with pytest.raises(ValueError, match="reserved_share = 1"):
        small.fits(find_chip("t4"), reserved_share=1)


def test_reserve_can_tip_the_balance():
    small = estimate_memory(shape(), batch_per_device=8, precision="float32")
    chip = dataclasses.replace(find_chip("t4"), memory_bytes=small.total)
    assert small.fits(chip, reserved_share=0)
    assert not small.fits(chip)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "int8"}, "precision = 'int8'"),
        ({"batch_per_device": 0}, "batch = 0"),
        ({"recompute": "half"}, "recompute = 'half'"),
    ],
)
def test_a_wrong_argument_is_named(change, words):
    arguments = {"batch_per_device": 1, "precision": "float32", **change}
    with pytest.raises(ValueError, match="expected") as caught:
        estimate_memory(shape(), **arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "mixed_bfloat16"])
def test_frozen_weights_have_neither_gradients_nor_moments(precision):
    lora = LoraConfig(rank=8, alpha=16.0)
    trained, total = lora.params(shape()), shape().params_total
    how = {"batch_per_device": 2, "precision": precision}
    whole, parts = estimate_memory(shape(), **how), estimate_memory(shape(), lora=lora, **how)
    assert parts.frozen_weights == whole.weights
    assert (parts.weights, parts.gradients, parts.optimizer) == (
        4 * trained, 4 * trained, 8 * trained,
    )  # fmt: skip
    assert parts.checkpoint_bytes == 12 * trained
    assert parts.compute_copy * total == whole.compute_copy * (total + trained)
    assert parts.logits == whole.logits
    classifier = shape(causal=False, head="classifier", classes=5)
    head = classifier.params_by_part()["head"]
    of_head = estimate_memory(classifier, lora=lora, **how)
    assert of_head.optimizer == 8 * (lora.params(classifier) + head)


@given(st.sets(st.sampled_from(LORA_TARGETS), min_size=1), st.integers(1, 64))
def test_an_input_is_kept_for_an_adapter_alone(targets, rank):
    of = shape(mlp="swiglu", kv_heads=2)
    how = {"batch": 3, "precision": "float32", "dropout": False}
    lora = LoraConfig(rank=rank, alpha=1.0, targets=tuple(targets))
    less = layer_activations(of, **how).total - layer_activations(of, lora=lora, **how).total
    unused = 0
    for those, width in (("qkv", 512), ("o", 512), (("gate", "up"), 512), (("down",), 2048)):
        unused += 0 if targets & set(those) else width
    assert less == 4 * 3 * 256 * (unused - rank * len(targets))
    # With dropout each adapter has an input of its own, and a mask of a byte.
    dropping = dataclasses.replace(lora, dropout=0.1)
    less = layer_activations(of, **how).total - layer_activations(of, lora=dropping, **how).total
    own = sum(2048 if target == "down" else 512 for target in targets)
    every = 512 + 512 + 512 + 2048
    assert less == 3 * 256 * (4 * (every - rank * len(targets)) - 5 * own)


# The most that was held on an H200 by the Trainer's own XLA program for gpt2-small, compiled by
# JAX's XLA: benchmarks/gpu/results-h200-2026-11-29.json.
RECORD = pathlib.Path(__file__).parents[2] / "benchmarks/gpu/results-h200-2026-11-29.json"
ON_H200 = {case["case"]: case for case in json.loads(RECORD.read_text())["lowered"]}


@pytest.mark.parametrize("name", ON_H200)
def test_an_accelerator_holds_what_was_measured_within_8_percent(name):
    case = ON_H200[name]
    gpt2 = shape(
        layers=12, d_model=768, heads=12, d_ff=3072, vocab_size=50_257, positions="learned",
        norm="layer", use_bias=True, sequence_length=case["length"],
    )  # fmt: skip
    assert gpt2.params_total == pytest.approx(case["parameters"], rel=0.02)
    estimate = estimate_memory(
        gpt2, batch_per_device=case["rows"], precision=case["precision"], dropout=False
    )
    assert estimate.total == pytest.approx(case["peak_memory_bytes"], rel=0.08)


def test_attention_on_an_accelerator_is_of_blocks_unless_there_is_dropout():
    long = shape(sequence_length=4096)
    how = {"batch": 1, "precision": "mixed_bfloat16"}
    blocked = xla_layer_activations(long, dropout=False, **how)
    scores = 8 * 4096 * 4096
    # Eight blocks: 36 of 64 parts of the scores, in 4 + 2 bytes, and 36 of 8 of keys and values.
    assert blocked.attention == scores * 36 // 64 * 6 + 36 * 4096 // 8 * 2 * 512 * 2
    dropped = xla_layer_activations(long, dropout=True, **how)
    assert dropped.attention == scores * (4 + 2 + 1) + 4096 * 2 * 512 * 2
    encoder = xla_layer_activations(dataclasses.replace(long, causal=False), dropout=False, **how)
    assert encoder.attention == scores * 6 + 4096 * 2 * 512 * 2
    fused = xla_layer_activations(long, dropout=False, recompute="selective", **how)
    assert fused.attention == 0


# The most that a process held which trained four steps (components/train/step.py, XLA, rope, no
# dropout; 2 cores, 2026-11), MiB: shape, batch, precision, recomputation.
DEMO = {
    "layers": 4, "d_model": 256, "heads": 4, "d_ff": 1024, "vocab_size": 4096,
    "sequence_length": 256, "positions": "rope",
}  # fmt: skip
WIDE = {"layers": 2, "d_model": 768, "heads": 12, "d_ff": 3072, "vocab_size": 16_000}
MEASURED_ON_CPU = {
    "the demo's": ({}, 16, "float32", "none", 1453),
    "recomputed": ({}, 16, "float32", "full", 1375),
    "64 rows": ({}, 64, "float32", "none", 2235),
    "64 rows, recomputed": ({}, 64, "float32", "full", 1973),
    "16 bits": ({}, 16, "mixed_bfloat16", "none", 1352),
    "long rows": ({"sequence_length": 1024}, 8, "float32", "none", 2001),
    "wide": (WIDE, 8, "float32", "none", 1988),
    "many tokens": ({"vocab_size": 50_000, "d_model": 128, "d_ff": 512}, 16, "float32", "none",
                    2014),
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURED_ON_CPU)
def test_a_cpu_holds_what_was_measured_within_15_percent(name):
    change, batch, precision, recompute, mebibytes = MEASURED_ON_CPU[name]
    estimate = estimate_memory(
        shape(**{**DEMO, **change}),
        batch_per_device=batch,
        precision=precision,
        recompute=recompute,
        dropout=False,
        parallelism=CPU_PARALLELISM,
        on_cpu=True,
    )
    assert estimate.total == pytest.approx(mebibytes * 2**20, rel=0.15)


# The same of trainings with adapters, of all linear layers where none are named.
LLAMA = {
    "layers": 6, "d_model": 768, "heads": 12, "kv_heads": 4, "d_ff": 2048, "vocab_size": 32_000,
    "norm": "rms", "mlp": "swiglu", "tie_embeddings": False,
}  # fmt: skip
BIASED = {"norm": "layer", "use_bias": True}
ADAPTED_ON_CPU = {
    "the demo's": (BIASED, 16, "float32", 8, None, 1472),
    "64 rows": (BIASED, 64, "float32", 8, None, 2366),
    "wide": ({**BIASED, **WIDE}, 8, "float32", 8, None, 1468),
    "wide, rank 64": ({**BIASED, **WIDE}, 8, "float32", 64, None, 1508),
    "87 million": (LLAMA, 8, "float32", 8, None, 2877),
    "87 million, q and v": (LLAMA, 8, "float32", 8, ("q", "v"), 2493),
    "87 million, 16 bits": (LLAMA, 8, "bfloat16", 8, None, 2731),
}


@pytest.mark.parametrize("name", ADAPTED_ON_CPU)
def test_a_cpu_holds_what_was_measured_with_adapters_within_10_percent(name):
    change, batch, precision, rank, targets, mebibytes = ADAPTED_ON_CPU[name]
    estimate = estimate_memory(
        shape(**{**DEMO, **change}),
        batch_per_device=batch,
        precision=precision,
        dropout=False,
        parallelism=CPU_PARALLELISM,
        on_cpu=True,
        lora=LoraConfig(rank=rank, alpha=16.0, targets=targets),
    )
    assert estimate.total == pytest.approx(mebibytes * 2**20, rel=0.1)


def test_keys_and_values_of_a_served_text():
    """Llama 2 7B: half a MiB a token in 16 bits; grouped heads keep as many as they are."""
    llama = ModelShape(
        layers=32, d_model=4096, heads=32, d_ff=11008, vocab_size=32000, sequence_length=4096,
        positions="rope", norm="rms", use_bias=False, mlp="swiglu", tie_embeddings=False,
    )  # fmt: skip
    assert kv_cache_bytes(llama, tokens=1, bytes_per_number=2) == 512 << 10
    assert kv_cache_bytes(llama, tokens=4096) == 4 << 30
    grouped = dataclasses.replace(llama, kv_heads=8)
    assert kv_cache_bytes(grouped, tokens=4096) == 1 << 30
