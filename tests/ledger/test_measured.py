"""What `tokenmill value` measured, in the ledger of the same text."""

import io

import pytest
from rich.console import Console

from components.cost_report.steps import StepTime, return_on_curation, step_costs
from components.ledger.measured import find_measured, measured_tokens
from pipeline.loader import load_config
from pipeline.report.cost import cost_table, notes, summary_table
from pipeline.report.sources import source_costs_table
from tests.ledger.test_ledger_document import make_ledger
from tests.studies.made_value import BETTER, RATIO, made_value, source, variant
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.value import write_value
from tokenmill.errors import TokenmillError


@pytest.fixture
def written(tmp_path):
    def write(variants, **others):
        path = str(tmp_path / "value.json")
        write_value(path, made_value(variants, **others))
        return path

    return write


def of_this_text(**others):
    base = load_config("demo").data_fingerprint
    return variant("base", base, 2.06, BETTER, "better", RATIO, **others)


def test_the_ledgers_job_knows_what_was_measured_of_its_text(written):
    path = written([variant("raw", "r"), of_this_text()])
    measured = load_config("demo", overrides=[f"cost.value={path}"]).ledger_job().measured
    assert (measured.variant, measured.reference) == ("base", "raw")
    assert measured.multiplier == RATIO
    assert measured.difference == BETTER
    assert load_config("demo").ledger_job().measured is None


@pytest.mark.parametrize(
    "change",
    ["curate.rules=none", "tokenizer.vocab_size=999", "corpus.input=[\"a\"]",
     "pack.source_weights={a=1}"],
)  # fmt: skip
def test_another_text_has_not_been_measured(written, change):
    path = written([variant("raw", "r"), of_this_text()])
    config = load_config("demo", overrides=[f"cost.value={path}", change])
    with pytest.raises(TokenmillError, match="none of its variants") as error:
        config.ledger_job()
    assert "tokenmill value" in error.value.hint
    # What decides nothing of the text may differ.
    same = load_config("demo", overrides=[f"cost.value={path}", "train.epochs=2", "pack.shards=1"])
    assert same.ledger_job().measured is not None


def test_a_missing_file_is_named():
    with pytest.raises(TokenmillError, match=r"cost\.value = nowhere\.json: No such file"):
        find_measured("nowhere.json", "f")


def test_of_two_texts_each_is_worth_what_the_other_is_not(written):
    worse = RATIO.model_copy(update={"value": 0.8, "low": 0.5, "high": None})
    raw = variant("raw", "r", difference=BETTER, verdict="better", multiplier=worse)
    measured = find_measured(written([variant("base", "f"), raw]), "f")
    assert measured.reference == "raw"
    assert measured.multiplier.value == pytest.approx(1.25)
    assert (measured.multiplier.low, measured.multiplier.high) == (None, 2.0)
    assert (measured.multiplier.least, measured.multiplier.most) == (0.5, 4.0)
    assert (measured.difference.mean, measured.difference.low) == (0.043, 0.031)
    # With a third text there is no one answer.
    path = written([variant("base", "f"), raw, variant("c", "c", difference=BETTER)])
    measured = find_measured(path, "f")
    assert measured.multiplier is None
    assert "this text is the reference there" in measured.note
    ledger = Ledger.model_validate(make_ledger(measured=measured))
    assert any("cost.value: this text is the reference" in note for note in notes(ledger))


def test_a_text_without_a_source_is_no_configuration(written):
    without = variant("without:x", "", difference=BETTER, verdict="worse", multiplier=RATIO)
    path = written([variant("base", "f"), without], sources={"x": source(0.4)})
    measured = find_measured(path, "f")
    assert (measured.variant, measured.multiplier) == ("base", None)
    assert measured.sources == {"x": source(0.4)}


def test_tokens_and_money_follow_from_the_ratio(written):
    path = written([variant("raw", "r"), of_this_text()])
    measured = find_measured(path, of_this_text().data_fingerprint)
    found = measured_tokens(measured, 1000.0, 20.0)
    assert found.effective_tokens == pytest.approx(1310)
    assert (found.effective_tokens_low, found.effective_tokens_high) == (1180, 1450)
    assert found.saved_usd == pytest.approx(6.2)
    assert found.saved_usd_low == pytest.approx(3.6)
    open_end = measured.model_copy(update={"multiplier": RATIO.model_copy(update={"high": None})})
    assert measured_tokens(open_end, 1000.0, 20.0).effective_tokens_high is None


def shown(table):
    stream = io.StringIO()
    Console(file=stream, width=100, highlight=False).print(table)
    return stream.getvalue()


def test_a_run_shows_it_beside_the_definition(written):
    path = written([variant("raw", "r"), of_this_text()], sources={"a": source(0.2)})
    measured = find_measured(path, of_this_text().data_fingerprint)
    without = Ledger.model_validate(make_ledger())
    ledger = Ledger.model_validate(make_ledger(measured=measured))
    assert ledger.measured.effective_tokens == pytest.approx(
        1.31 * ledger.training.effective_tokens
    )
    assert ledger.measured.saved_usd == pytest.approx(0.31 * ledger.cost.compute_usd)
    for table in (summary_table(ledger, None), cost_table(ledger, None)):
        text = shown(table)
        assert "effective tokens (measured x1.31 [1.18, 1.45])" in text
        assert max(map(len, text.splitlines())) <= 100
    assert any("-0.043 [-0.055, -0.031] bits per byte" in note for note in notes(ledger))
    assert any("more compute than this training" in note for note in notes(ledger))
    assert "measured" not in shown(summary_table(without, None))
    assert not any("easured" in note for note in notes(without))
    assert "x1.31 [1.18, 1.45]  helps" in shown(source_costs_table(ledger))
    assert "helps" not in shown(source_costs_table(without))


def test_the_bill_sets_what_the_text_saves_beside_what_curation_cost(written):
    measured = find_measured(
        written([variant("raw", "r"), of_this_text()]), of_this_text().data_fingerprint
    )
    ledger = Ledger.model_validate(make_ledger(measured=measured))
    times = [
        StepTime(step=step, seconds=60.0, vcpus=2, ran=True)
        for step in ("Curator", "Packer", "Trainer")
    ]
    steps = step_costs(times, ledger, trainer_seconds=3600.0)
    curator, packer = return_on_curation(steps, ledger, step_seconds=1.0)
    # Two chips at $2.50 for an hour.
    assert curator.measured_saved_usd == pytest.approx(0.31 * 5.0)
    assert curator.measured_bits_per_byte == 0.043
    assert packer.measured_saved_usd is None
    plain = Ledger.model_validate(make_ledger())
    assert return_on_curation(steps, plain, step_seconds=1.0)[0].measured_saved_usd is None
