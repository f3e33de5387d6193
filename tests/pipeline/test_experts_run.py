"""A mixture of experts through the real pipeline: trained, seen, pushed in int8, asked."""

import json

import pytest
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.loop import Trainer
from components.train.telemetry.expert_load import expert_load_meter
from tests.pipeline.test_report_page import rows_of, text_of
from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit

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
    assert "the nearest family, cannot express norm = layer" in run.said
    assert "balance = bias. It is trained, pushed and served all the same." in run.said
    ledger = json.loads(next(home.glob("artifacts/TokenLedger/ledger/*/ledger.json")).read_text())
    total, active = ledger["model"]["params_total"], ledger["model"]["params_active"]
    assert active < total
    assert f"({active:,} active a token)" in run.said
    page = max(home.glob("logs/*/report.html")).read_text()
    text = text_of(page)
    assert "8 experts in each of 2 layers" in text
    assert "from step 0 to 60" in text
    assert f"of which a token passes {active:,} (2 layers, rows of 64 tokens), trained" in text
    (row,) = [cells for cells in rows_of(page) if cells[0] == "layer 1" and len(cells) == 5]
    assert int(row[3]) == 0, "dead experts"
    (pushed,) = (home / "serving_model").iterdir()
    assert f"{active:,}" in (pushed / "README.md").read_text()
    described = json.loads((pushed / "assets.extra" / "model.json").read_text())
    assert described["quantization"] == "int8"


def largest_load_after_training(rows_uri, balance):
    """Return the largest load of the layers' experts, in means, after 300 steps."""
    train_rows, held_out = PackedSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    shape = ModelShape(
        layers=2, d_model=48, heads=4, d_ff=48, vocab_size=train_rows.manifest.vocab_size,
        sequence_length=train_rows.sequence_length, positions="rope", norm="rms", use_bias=False,
        mlp="swiglu", tie_embeddings=True, experts=8, experts_per_token=2, balance=balance,
    )  # fmt: skip
    model = Decoder(shape, 1)
    measure = expert_load_meter(model, held_out)
    plan = plan_steps(train_rows.rows, 16, 1000, 300)
    config = TrainConfig(learning_rate=4e-3, warmup_fraction=0.1)
    record = Trainer(tf.distribute.get_strategy(), model, config, plan, 1).fit(train_rows, held_out)
    assert record.eval_after.loss < 0.9 * record.eval_before.loss
    return max(of.max_load for of in measure())


@pytest.mark.slow
def test_balance_keeps_loads_more_even_on_real_text(first_run):
    """Than training alone leaves them; an untrained router's are nearly even."""
    (rows,) = first_run.home.glob("artifacts/Packer/packed_rows/*")
    alone = largest_load_after_training(str(rows), "none")
    for balance in ("auxiliary", "bias"):
        assert largest_load_after_training(str(rows), balance) < 0.9 * alone
