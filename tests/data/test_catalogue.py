import dataclasses
from pathlib import Path

import pytest

from components.model_shape import ModelShape
from data import catalogue
from data.catalogue import find_chip, load_chips, load_published_runs

RUNS = {run.name: run for run in load_published_runs()}

# What the CSV does not say about each architecture; from the models' papers and configurations.
GPT = {"positions": "learned", "norm": "layer", "use_bias": True, "mlp": "gelu"}
LLAMA = {"positions": "rope", "norm": "rms", "use_bias": False, "mlp": "swiglu"}
TIED, UNTIED = {"tie_embeddings": True}, {"tie_embeddings": False}
PYTHIA = {**GPT, "positions": "rope", **UNTIED}
GROUPED = {"n_kv_heads": 8}
# ALiBi, like rope, has no parameters.
MPT = {**GPT, "positions": "rope", "use_bias": False, **TIED}
SHAPES = {
    "LLaMA 7B": {**LLAMA, **UNTIED},
    "LLaMA 33B": {**LLAMA, **UNTIED},
    "Llama 2 7B": {**LLAMA, **UNTIED},
    "Llama 2 13B": {**LLAMA, **UNTIED},
    "Llama 2 70B": {**LLAMA, **UNTIED, **GROUPED},
    "Llama 3 8B": {**LLAMA, **UNTIED, **GROUPED},
    "Llama 3 70B": {**LLAMA, **UNTIED, **GROUPED},
    "Llama 3.1 8B": {**LLAMA, **UNTIED, **GROUPED},
    "Llama 3.1 70B": {**LLAMA, **UNTIED, **GROUPED},
    "Llama 3.1 405B": {**LLAMA, **UNTIED, **GROUPED},
    "OPT-175B": {**GPT, **TIED},
    "MT-NLG 530B": {**GPT, **TIED},
    "GPT-NeoX-20B": {**PYTHIA, "vocab_size": 50432},  # padded, say the notes
    "MPT-7B": MPT,
    "MPT-30B (H100-equivalent quote)": MPT,
    "nanoGPT GPT-2 124M": {**GPT, "use_bias": False, **TIED},
    "llm.c GPT-2 124M": {**GPT, **TIED},
    "llm.c GPT-2 1558M": {**GPT, **TIED},
    "GPT-3 175B": {**GPT, **TIED},
    "BloombergGPT 50B": {**GPT, "positions": "rope", **TIED},  # ALiBi
    "RoBERTa-large (100k steps)": {**GPT, **TIED, "causal": False},
    "OLMo 2 32B": {**LLAMA, **UNTIED, **GROUPED},
    "OLMo 2 7B": {**LLAMA, **UNTIED},
    "OLMo 7B (v1)": {**LLAMA, **UNTIED},  # its norms have no parameters at all
    "OLMo 1B (v1)": {**LLAMA, **TIED},
    # Squared ReLU has two matrices, like gelu.
    "Nemotron-4 340B": {**GPT, "positions": "rope", "use_bias": False, **UNTIED, **GROUPED},
    **{f"Pythia-{size}": PYTHIA for size in ("70M", "160M", "410M", "1.0B", "2.8B", "6.9B")},
}
# Every other row, and why its parameters do not follow from a ModelShape within 1 %.
NOT_A_CLEAN_SHAPE = {
    "BERT-large": "340M is rounded up from 335M; the notes call it a weak row",
    "PaLM 540B": "heads are 256 wide, not d_model / n_heads = 384 (shape from memory)",
    "MPT-1.3B-RedPajama": "no d_ff or vocabulary in the row",
    "Falcon-180B": "no d_ff in the row",
    "llm.c GPT-2 350M": "350M is rounded from 354.8M, 1.4 % off",
    "Olmo 3 7B": "no shape in the row",
    "Olmo 3 32B": "no shape in the row",
    "Gopher 280B": "relative positions add a d·d matrix to each layer",
    "Chinchilla 70B": "relative positions add a d·d matrix to each layer; shape from memory",
    "LaMDA 137B": "no sequence length in the row; head width is not d_model / n_heads",
    "T5-11B": "encoder-decoder; its heads are 128 wide, not d_model / n_heads = 8",
    "UL2 20B": "encoder-decoder, no shape in the row",
    "Nemotron-4 15B": "15B is rounded from 15.6B, 4 % off; shape from memory",
    "OLMoE-1B-7B": "mixture of experts",
    "Phi-1.5": "1.3B is the name, the shape has 1.42B; the notes call the row an outlier",
}


def shape_of(run):
    fields = {
        "n_layers": run.n_layers,
        "d_model": run.d_model,
        "n_heads": run.n_heads,
        "d_ff": run.d_ff,
        "vocab_size": run.vocab_size,
        "sequence_length": run.sequence_length,
    }
    return ModelShape(**{**fields, **SHAPES[run.name]})


def test_every_run_is_either_clean_or_excused():
    assert set(SHAPES) | set(NOT_A_CLEAN_SHAPE) == set(RUNS)
    assert not set(SHAPES) & set(NOT_A_CLEAN_SHAPE)
    assert len(RUNS) == len(load_published_runs()) == 47


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_follow_from_the_shape(name):
    run = RUNS[name]
    assert shape_of(run).params_total == pytest.approx(run.params_total, rel=0.01)


def test_bloomberg_is_exact():
    # It has one norm more than we count, after the embedding.
    run = RUNS["BloombergGPT 50B"]
    assert shape_of(run).params_total + 2 * run.d_model == run.params_total


@pytest.mark.parametrize(
    "name", [name for name, run in RUNS.items() if run.implied_mfu and not run.is_outlier]
)
def test_implied_mfu_is_possible(name):
    assert 0 < RUNS[name].implied_mfu < 0.75


def test_the_outlier_is_known_as_one():
    assert [run.name for run in RUNS.values() if run.is_outlier] == ["Phi-1.5"]
    assert RUNS["Phi-1.5"].implied_mfu == pytest.approx(0.69, abs=0.01)


def test_implied_mfu_agrees_with_published_figures():
    # Quoted as 6·N in the notes or the utilisation column.
    assert RUNS["GPT-3 175B"].implied_mfu == pytest.approx(0.197, abs=0.002)
    assert RUNS["Gopher 280B"].implied_mfu == pytest.approx(0.30, abs=0.01)
    assert RUNS["MPT-30B (H100-equivalent quote)"].implied_mfu == pytest.approx(0.372, abs=0.002)
    # PaLM's hours include downtime and repeated steps, so MFU times goodput is far below 46.2 %.
    assert 0.25 < RUNS["PaLM 540B"].implied_mfu < 0.462


def test_implied_mfu_needs_its_inputs():
    assert RUNS["Chinchilla 70B"].implied_mfu is None
    assert RUNS["LaMDA 137B"].tokens is None


def test_derived_chip_hours_are_chips_times_days():
    for run in RUNS.values():
        if run.chips and run.wall_days and run.chip_hours_basis.startswith("derived: n_chips"):
            assert run.chip_hours == pytest.approx(run.chips * run.wall_days * 24, rel=0.01)


def test_every_fact_has_a_source():
    for run in RUNS.values():
        assert run.source, run.name
        assert run.source_grade, run.name
    for chip in load_chips():
        assert chip.price_source, chip.name
        assert chip.price_date[:2] == "20", chip.name
        assert chip.price_provider, chip.name
        assert chip.spec_source or chip.peak_flops_per_second is None, chip.name


def test_chips_have_units():
    chip = find_chip("rtx-3090")
    assert chip.peak_flops_per_second == 71e12
    assert chip.memory_bytes == 24 * 2**30
    assert chip.memory_bytes_per_second == 936e9
    assert chip.price_usd_per_chip_hour == 0.22
    assert (chip.price_provider, chip.price_date) == ("RunPod", "2026-03")
    assert chip.bfloat16_supported
    assert not find_chip("t4").bfloat16_supported
    assert find_chip("b200-sxm").memory_bytes == 180 * 2**30  # usable, not marketed


def test_tpu_price_is_per_chip_not_per_board():
    assert find_chip("tpu-v2").price_usd_per_chip_hour == pytest.approx(4.5 / 4, abs=0.01)


def test_the_vcpu_has_no_guessed_peak():
    vcpu = find_chip("cpu-vcpu")
    assert vcpu.peak_flops_per_second is None
    assert vcpu.memory_bytes is None
    assert vcpu.bfloat16_supported is None
    assert vcpu.price_usd_per_chip_hour == 0.05


def test_peaks_are_those_the_runs_were_measured_against():
    for word, slug in (("TPU v4", "tpu-v4"), ("A100-80GB", "a100-sxm4-80gb"), ("TPU v3", "tpu-v3")):
        peaks = {
            run.peak_flops_per_second
            for run in RUNS.values()
            if run.hardware.startswith(word) and run.peak_flops_per_second
        }
        assert peaks == {find_chip(slug).peak_flops_per_second}


def test_slugs_are_unique_and_found():
    chips = load_chips()
    assert len({chip.slug for chip in chips}) == len(chips) == 20
    for chip in chips:
        assert find_chip(chip.slug) is chip
        assert find_chip(chip.name.upper()) is chip
    assert find_chip("rtx3090").slug == "rtx-3090"
    assert find_chip("TPU v4").slug == "tpu-v4"


@pytest.mark.parametrize(
    ("name", "near"),
    [("rtx-3080", "rtx-3090"), ("h100", "h100-sxm5-80gb"), ("tpu-v7", "tpu-v5p"), ("?", "t4")],
)
def test_an_unknown_chip_lists_its_neighbours(name, near):
    with pytest.raises(ValueError, match="the nearest are") as caught:
        find_chip(name)
    assert near in str(caught.value)


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_chip("t4").price_usd_per_chip_hour = 0


@pytest.mark.parametrize(
    ("cell", "words"),
    [("free", "= 'free'"), ("-1", "= '-1'"), ("", "= ''"), ("inf", "= 'inf'")],
)
def test_a_bad_price_names_file_line_and_column(tmp_path: Path, monkeypatch, cell, words):
    lines = catalogue.HARDWARE_FILE.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "hardware.csv"
    broken.write_text("\n".join([lines[0], lines[1].replace(",1.13,", f",{cell},")]) + "\n")
    monkeypatch.setattr(catalogue, "HARDWARE_FILE", broken)
    with pytest.raises(ValueError, match=r"hardware\.csv line 2: on_demand_usd") as caught:
        load_chips.__wrapped__()
    assert words in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path, monkeypatch):
    broken = tmp_path / "hardware.csv"
    broken.write_text("chip,vendor\nX1,Y\n")
    monkeypatch.setattr(catalogue, "HARDWARE_FILE", broken)
    with pytest.raises(ValueError, match="peak_dense_bf16_fp16_tensor_tflops"):
        load_chips.__wrapped__()
