"""A mixture of experts through the real pipeline: trained, seen, pushed in int8, asked."""

import json

import pytest

from tests.pipeline.test_report_page import rows_of, text_of

EXPERTS = [
    "model.experts=8", "model.experts_per_token=2", "model.d_ff=96", "model.balance=bias",
    "train.max_steps=60", "push.quantization=int8", "cost.mfu=0.4",
    "evaluate.require_improvement=false", "evaluate.beat_baseline=false",
    "evaluate.max_bits_per_byte=8",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_shows_what_became_of_its_experts(workspace):
    home = workspace.root / "experts"
    settings = [word for key in EXPERTS for word in ("--set", key)]
    run = workspace.run("--output-dir", str(home), *settings)
    assert run.exit_code == 0, run.output
    assert "active a token)" in run.said
    assert "cannot express balance = bias" in run.said.replace("can not", "cannot")
    ledger = json.loads(next(home.glob("artifacts/TokenLedger/ledger/*/ledger.json")).read_text())
    total, active = ledger["model"]["params_total"], ledger["model"]["params_active"]
    assert active < total
    page = max(home.glob("logs/*/report.html")).read_text()
    text = text_of(page)
    assert "8 experts in each of 2 layers" in text
    assert "from step 0 to 60" in text
    assert f"{active:,}" in text
    (row,) = [cells for cells in rows_of(page) if cells[0] == "layer 1" and len(cells) == 5]
    assert int(row[3]) == 0, "dead experts"
    (pushed,) = (home / "serving_model").iterdir()
    assert f"{active:,}" in (pushed / "README.md").read_text()
    described = json.loads((pushed / "assets.extra" / "model.json").read_text())
    assert described["quantization"] == "int8"


@pytest.mark.slow
def test_loads_become_more_even_on_real_text(first_run, workspace): ...
