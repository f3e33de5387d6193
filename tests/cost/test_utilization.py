import pytest

from data.catalog.chips import find_chip, load_chips
from tokenmill.cost.published_runs import load_published_runs
from tokenmill.cost.utilization import (
    MIN_RUNS,
    usable_runs,
    utilization_of,
    utilization_range,
)


def test_a_range_is_of_the_chips_family_and_size():
    found = utilization_range(find_chip("h100"), 7e10)
    runs = {run.name: run for run in load_published_runs()}
    assert len(found.runs) >= MIN_RUNS
    for name in found.runs:
        assert find_chip(runs[name].chip).family == "hopper"
        assert 1 / 5 <= runs[name].params_active / 7e10 <= 5
    assert found.low <= found.median <= found.high
    assert found.basis == "hopper chips, models within 5x"


@pytest.mark.parametrize(
    ("chip", "params", "basis"),
    [
        ("h100", 1e13, "hopper chips, models of all sizes"),
        ("rtx-3090", 1e9, "NVIDIA chips, models within 5x"),
        ("v100", 1e9, "volta chips, models of all sizes"),
        ("tpu-v4", 1e8, "Google chips, models of all sizes"),
        ("mi250x", 7e9, "all chips, models within 5x"),
        ("mi250x", 1e14, "all chips, models of all sizes"),
    ],
)
def test_too_few_runs_widen_the_range(chip, params, basis):
    assert utilization_range(find_chip(chip), params).basis == basis


def test_every_chip_has_a_possible_range_at_every_size():
    for chip in load_chips():
        for params in (1e5, 1e8, 1e10, 1e13):
            for basis in ("exact", "6n"):
                found = utilization_range(chip, params, basis)
                assert 0 < found.low <= found.median <= found.high < 0.7


def test_a_run_can_be_left_out():
    for run in usable_runs():
        found = utilization_range(
            find_chip(run.chip), run.params_active, without=run.name, sparse=run.is_sparse
        )
        assert run.name not in found.runs


def test_sparse_and_dense_models_guide_their_own_kind():
    runs = {run.name: run for run in load_published_runs()}
    for chip in load_chips():
        dense, sparse = (utilization_range(chip, 1e10, sparse=kind) for kind in (False, True))
        assert not any(runs[name].is_sparse for name in dense.runs)
        assert all(runs[name].is_sparse for name in sparse.runs)
        assert 0.15 < sparse.low <= sparse.high < 0.35
    assert sparse.basis.endswith("mixtures of experts within 5x")


def test_a_held_out_mixture_of_experts_is_forecast_by_the_others():
    for run in usable_runs():
        if not run.is_sparse:
            continue
        found = utilization_range(
            find_chip(run.chip), run.params_active, without=run.name, sparse=True
        )
        assert found.median == pytest.approx(utilization_of(run), rel=0.25)


def test_runs_with_a_caveat_guide_nothing():
    names = {run.name for run in usable_runs()}
    assert "Phi-1.5" not in names
    assert "UL2 20B" not in names
    assert len(names) >= 34


def test_the_two_bases_differ_by_attention():
    run = next(run for run in usable_runs() if run.name == "Llama 3 8B")
    ratio = utilization_of(run, "exact") / utilization_of(run, "6n")
    assert ratio == pytest.approx(run.flops_per_token / (6 * run.params_active))
    t5 = next(run for run in usable_runs() if run.name == "T5-11B")
    assert utilization_of(t5, "6n") == utilization_of(t5, "exact") == pytest.approx(0.344, abs=0.01)
    empty = next(run for run in load_published_runs() if run.name == "Chinchilla 70B")
    with pytest.raises(ValueError, match="Chinchilla 70B"):
        utilization_of(empty)
