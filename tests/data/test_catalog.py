import dataclasses
from pathlib import Path

import pytest

from data.catalog import chips as catalog
from data.catalog.chips import find_chip, load_chips
from data.catalog.rows import read_rows
from tokenmill.cost.published_runs import load_published_runs

RUNS = {run.name: run for run in load_published_runs()}

CLEAN = [run.name for run in RUNS.values() if not run.shape_caveat]


def test_every_run_is_either_clean_or_excused():
    assert len(RUNS) == len(load_published_runs()) == 59
    assert len(CLEAN) == 42
    for run in RUNS.values():
        assert run.shape is not None or run.shape_caveat, run.name


@pytest.mark.parametrize("name", CLEAN)
def test_parameters_follow_from_the_shape(name):
    run = RUNS[name]
    assert run.shape.params_total == pytest.approx(run.params_total, rel=0.01)


@pytest.mark.parametrize(
    "name", [run.name for run in RUNS.values() if run.shape and run.shape_caveat]
)
def test_an_excused_shape_is_really_off(name):
    run = RUNS[name]
    assert run.shape.params_total != pytest.approx(run.params_total, rel=0.01)


SPARSE = [run.name for run in RUNS.values() if run.is_sparse]


def test_there_are_sparse_runs_with_and_without_hours():
    assert len(SPARSE) == 13
    assert sum(RUNS[name].chip_hours is not None for name in SPARSE) == 9


@pytest.mark.parametrize("name", [name for name in SPARSE if RUNS[name].shape])
def test_mixture_of_experts_has_its_active_parameters(name):
    run = RUNS[name]
    assert run.shape.params_active == pytest.approx(run.params_active, rel=0.02)


def test_bloomberg_is_exact():
    # It has one norm more than we count, after the embedding.
    run = RUNS["BloombergGPT 50B"]
    assert run.shape.params_total + 2 * run.d_model == run.params_total


@pytest.mark.parametrize(
    "name", [name for name, run in RUNS.items() if run.implied_mfu and not run.is_outlier]
)
def test_implied_mfu_is_possible(name):
    assert 0 < RUNS[name].implied_mfu < 0.75


def test_the_outlier_is_known_as_one():
    assert [run.name for run in RUNS.values() if run.is_outlier] == ["Phi-1.5"]
    assert RUNS["Phi-1.5"].implied_mfu == pytest.approx(0.69, abs=0.01)


def test_implied_mfu_agrees_with_published_figures():
    # Quoted as 6·N in the notes or the utilization column.
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
        for price in chip.prices:
            assert price.source, chip.name
            assert price.provider, chip.name
            assert price.date[:2] in ("20", ""), chip.name
        assert chip.spec_source or chip.peak_flops_per_second is None, chip.name


def test_only_a_page_without_a_date_gives_a_price_without_one():
    undated = [(c.slug, p.notes) for c in load_chips() for p in c.prices if not p.date]
    assert undated == [("mi250x", "the page has no date")]
    assert find_chip("mi250x").prices[0].label == "Runcrate, no date"


def test_a_chip_has_several_prices_and_may_have_none():
    h100 = find_chip("h100")
    assert len({price.usd_per_chip_hour for price in h100.prices}) > 3
    assert h100.price_usd_per_chip_hour == h100.prices[0].usd_per_chip_hour == 11.06
    assert find_chip("gaudi2").price_usd_per_chip_hour is None


@pytest.mark.parametrize(
    ("alias", "slug"),
    [
        ("a100", "a100-sxm4-80gb"),
        ("A100-40GB", "a100-sxm4-40gb"),
        ("H100 SXM", "h100-sxm5-80gb"),
        ("v100", "v100-sxm2-32gb"),
        ("trillium", "tpu-v6e"),
        ("cpu", "cpu-vcpu"),
        ("3090", "rtx-3090"),
        ("MI300X", "mi300x"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("Google Cloud TPU v4", "tpu-v4"),
        ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"),
    ],
)
def test_aliases(alias, slug):
    assert find_chip(alias).slug == slug


def test_aliases_are_of_one_chip_only():
    names = [name for chip in load_chips() for name in (chip.slug, *chip.aliases)]
    assert len(names) == len(set(names))


def test_every_run_names_a_chip_of_the_catalog_with_its_peak():
    for run in RUNS.values():
        if run.chip and run.peak_flops_per_second and run.name != "BERT-large":
            assert find_chip(run.chip).peak_flops_per_second == run.peak_flops_per_second, run.name
    # The row says 46 TFLOP/s, the catalog 45 (its notes name both).
    assert find_chip(RUNS["BERT-large"].chip).slug == "tpu-v2"


def test_chips_have_units():
    chip = find_chip("rtx-3090")
    assert chip.peak_flops_per_second == 71e12
    assert chip.memory_bytes == 24 * 2**30
    assert chip.memory_bytes_per_second == 936e9
    assert chip.price_usd_per_chip_hour == 0.22
    price = chip.prices[0]
    assert (price.provider, price.region, price.date) == ("RunPod", "", "2026-03")
    assert chip.bfloat16_supported
    assert not find_chip("t4").bfloat16_supported
    assert find_chip("b200-sxm").memory_bytes == 180 * 2**30  # usable, not marketed


# Matrix units over ordinary float32 units, dense and with float32 accumulation, by the makers' data
# sheets and whitepapers. With sparsity it is twice that, with fp16 accumulation (GeForce) too.
RATIOS = {
    8: ("v100-sxm2-16gb", "v100-sxm2-32gb", "t4", "mi250x", "mi300x"),
    16: ("a100-sxm4-40gb", "a100-sxm4-80gb", "a100-pcie-40gb", "a100-pcie-80gb", "h100-sxm5-80gb",
         "h100-pcie-80gb", "h800-sxm5-80gb", "h200-sxm-141gb"),
    30: ("b200-sxm",),
    15: ("tpu-v2",),
    4: ("l4", "l40s", "rtx-a6000"),
    2: ("rtx-3080", "rtx-3090", "rtx-3090-ti", "rtx-4080", "rtx-4090"),
}  # fmt: skip
EXPECTED_RATIO = {slug: ratio for ratio, slugs in RATIOS.items() for slug in slugs}
# Peaks without a float32 figure beside them, as two sources of the catalog give them, TFLOP/s.
DENSE_PEAKS = {
    "tpu-v3": 123, "tpu-v4": 275, "tpu-v5e": 197, "tpu-v5p": 459, "tpu-v6e": 918, "gaudi2": 432,
}  # fmt: skip


@pytest.mark.parametrize("chip", load_chips(), ids=lambda chip: chip.slug)
def test_no_peak_looks_like_the_sparse_one(chip):
    if chip.peak_flops_per_second is None:
        return
    if chip.float32_flops_per_second is None:
        assert chip.peak_flops_per_second == DENSE_PEAKS[chip.slug] * 1e12
        return
    ratio = chip.peak_flops_per_second / chip.float32_flops_per_second
    assert ratio == pytest.approx(EXPECTED_RATIO[chip.slug], rel=0.15)


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
    assert len({chip.slug for chip in chips}) == len(chips) == 30
    for chip in chips:
        assert find_chip(chip.slug) is chip
        assert find_chip(chip.name.upper()) is chip
    assert find_chip("rtx3090").slug == "rtx-3090"
    assert find_chip("TPU v4").slug == "tpu-v4"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("rtx-3091", "rtx-3090"),
        ("h100x", "h100-sxm5-80gb"),
        ("tpu-v7", "tpu-v6e"),
        ("?", "t4"),
    ],
)
def test_an_unknown_chip_lists_its_neighbors(name, near):
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
    lines = catalog.PRICES_FILE.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "prices.csv"
    broken.write_text("\n".join([lines[0], lines[1].replace(",1.13,", f",{cell},")]) + "\n")
    monkeypatch.setattr(catalog, "PRICES_FILE", broken)
    with pytest.raises(ValueError, match=r"prices\.csv line 2: usd_per_chip_hour") as caught:
        load_chips.__wrapped__()
    assert words in str(caught.value)


def test_a_price_of_an_unknown_chip_is_refused(tmp_path: Path, monkeypatch):
    lines = catalog.PRICES_FILE.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "prices.csv"
    broken.write_text("\n".join([*lines, "TPU v99,1,A,,2026,B,"]) + "\n")
    monkeypatch.setattr(catalog, "PRICES_FILE", broken)
    with pytest.raises(ValueError, match="chip = 'TPU v99'"):
        load_chips.__wrapped__()


def test_a_cell_too_many_is_named(tmp_path: Path, monkeypatch):
    lines = catalog.HARDWARE_FILE.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "hardware.csv"
    broken.write_text("\n".join([lines[0], lines[1] + ",9,728 cores"]) + "\n")
    monkeypatch.setattr(catalog, "HARDWARE_FILE", broken)
    with pytest.raises(ValueError, match=r"hardware\.csv line 2: 2 cells more"):
        load_chips.__wrapped__()


def test_each_way_between_chips_has_its_source():
    rows = {row.text("chip"): row for row in read_rows(catalog.HARDWARE_FILE)}
    for chip in load_chips():
        row = rows[chip.name]
        link, network = chip.interconnect_bytes_per_second, chip.network_bytes_per_second
        assert (link is None) is (row.text("interconnect_source") == ""), chip.name
        assert (chip.chips_per_machine is None) is (row.text("network_source") == ""), chip.name
        if network is not None:
            assert chip.chips_per_machine is not None, chip.name
            assert network < link, chip.name
    h100 = find_chip("h100")  # DGX H100: eight GPUs, an adapter of 400 Gb/s each
    assert (h100.chips_per_machine, h100.network_bytes_per_second) == (8, 400e9 / 8)


def test_a_missing_column_is_named(tmp_path: Path, monkeypatch):
    broken = tmp_path / "hardware.csv"
    broken.write_text("chip,vendor\nX1,Y\n")
    monkeypatch.setattr(catalog, "HARDWARE_FILE", broken)
    with pytest.raises(ValueError, match="column 'family' = missing"):
        load_chips.__wrapped__()
