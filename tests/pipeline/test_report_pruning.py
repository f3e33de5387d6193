"""What a run, its page and its card say of pruning."""

from complete_model import complete

from pipeline.report.model_card import quality
from pipeline.report.pruning import describe_pruning, pruning_table
from tokenmill.contracts.cost_report import Quality
from tokenmill.contracts.training import Pruning

LOSSES = {"nll_sum": 10.0, "loss_tokens": 5.0, "loss": 2.0, "perplexity": 7.4}
PRUNING = {
    "target": 0.5,
    "pattern": "2:4",
    "params": 3_145_728,
    "zeros": 1_572_864,
    "first_step": 173,
    "last_step": 216,
    "eval_before": {**LOSSES, "bits_per_byte": 2.25},
    "weight_bytes": 16_900_000,
    "compressed_bytes": 9_700_000,
}


def quality_of(pruning, total=None, **measures):
    after = {**LOSSES, **measures}
    keys = {
        "eval_before": LOSSES,
        "eval_after": after,
        "evaluation": {"total": total or {}},
        "pruning": pruning,
    }
    return complete(Quality, keys)


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_dense_and_pruned_stand_beside_each_other():
    total = {"bits_per_byte": 2.13, "bits_per_byte_ci95_low": 2.03, "bits_per_byte_ci95_high": 2.23}
    found = quality_of(PRUNING, total, bits_per_byte=2.125)
    table = pruning_table(found)
    assert [column.header for column in table.columns[1:]] == [
        "share of zeros", "bits per byte", "weight files", "gzip -1"
    ]  # fmt: skip
    assert cells(table) == [
        ["dense, after step 173, rows", "pruned, after the last step, rows",
         "pushed model, from raw text"],
        ["0.0%", "50.0%", "50.0%"],
        ["2.250", "2.125", "2.130 ± 0.100"],
        ["", "", "16.9 MB"],
        ["", "", "9.7 MB"],
    ]  # fmt: skip
    said = describe_pruning(found.pruning)
    assert "50.0% of the 3,145,728 weights" in said
    assert "2:4, from step 173 to 216" in said
    assert "16.9 MB, compressed (gzip -1) 9.7 MB" in said
    assert "neither memory nor time" in table.caption
    assert said in "".join(quality(found))


def test_a_masked_model_and_what_was_not_measured():
    bare = {**PRUNING, "eval_before": None, "weight_bytes": None, "compressed_bytes": None}
    table = pruning_table(quality_of(bare))
    assert table.columns[2].header == "masked-token perplexity"
    assert cells(table)[2:] == [["not measured", "7.4", "not measured"], [""] * 3, [""] * 3]
    assert "weight files" not in describe_pruning(Pruning.model_validate(bare))


def test_nothing_is_said_of_a_dense_model():
    assert pruning_table(quality_of(None, bits_per_byte=2.1)) is None
