"""A ladder's law in `tokenmill plan`, in the ledger and in a run's table."""

import json
import pathlib
import re

import pytest
from click.testing import CliRunner

from components.ledger.config import LedgerJob
from pipeline.cli import cli
from pipeline.loader import load_config
from pipeline.report.cost import notes, summary_table
from pipeline.report.page.content import table_of_screen
from pipeline.report.page.cost import cost_section
from pipeline.report.page.run_documents import RunDocuments
from tests.studies.made_ladder import loss_of, made_ladder
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ladder import write_ladder
from tokenmill.contracts.ledger import Ledger
from tokenmill.cost.ladder_fit import expected_by_ladder
from tokenmill.errors import TokenmillError

RECORDED = pathlib.Path(__file__).parents[1] / "pipeline" / "golden" / "demo_report.json"


@pytest.fixture(scope="module")
def ladder():
    return made_ladder()


@pytest.fixture(scope="module")
def path(ladder, tmp_path_factory):
    file = str(tmp_path_factory.mktemp("ladder") / "ladder.json")
    write_ladder(file, ladder)
    return file


def plan(*arguments):
    return CliRunner().invoke(cli, ["plan", "--preset", "demo", "--tokens", "3.5M", *arguments])


@pytest.mark.parametrize("by", ["flag", "key"])
def test_a_plan_says_what_the_ladder_expects(path, by):
    option = ["--ladder", path] if by == "flag" else ["--set", f"cost.ladder={path}"]
    done = plan(*option, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)["guidance"]["ladder"]
    params = load_config("demo").shape().params_in_products
    assert found["bits_per_byte"]["value"] == pytest.approx(loss_of(params, 3.5e6), rel=0.03)
    assert found["params"] == params
    assert len(found["published"]) == 2
    shown = plan(*option).output
    assert f"{found['bits_per_byte']['value']:.3f} bits per byte" in shown
    assert "Hoffmann et al. 2022" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "ladder" not in json.loads(plan("--json").output)["guidance"]


def test_a_plan_of_another_vocabulary_has_no_number(path):
    done = plan("--ladder", path, "--set", "tokenizer.vocab_size=8192")
    assert done.exit_code == 0
    assert "vocabulary has 4,096 tokens" in " ".join(done.output.split())


def test_a_plan_names_a_ladder_that_is_not_there():
    done = plan("--ladder", "/nowhere/ladder.json")
    assert done.exit_code == 2
    assert "--ladder = /nowhere/ladder.json" in done.output


@pytest.mark.parametrize("damage", ["another version", "NaN", "broken off"])
def test_a_plan_refuses_a_ladder_that_is_not_of_this_version(path, tmp_path, damage):
    text = pathlib.Path(path).read_text()
    damaged = {
        "another version": text.replace("tokenmill-ladder-2", "tokenmill-ladder-9"),
        "NaN": re.sub(r'"flops_overhead": [^,]+', '"flops_overhead": NaN', text),
        "broken off": text[:-100],
    }[damage]
    assert damaged != text
    file = tmp_path / "ladder.json"
    file.write_text(damaged)
    done = plan("--ladder", str(file))
    assert done.exit_code != 0
    assert "ladder.json" in done.output
    assert "Traceback" not in done.output


def test_the_ledger_is_given_the_law(path, ladder):
    job = load_config("demo", None, [f"cost.ladder={path}"]).ledger_job()
    assert job.law == ladder.law(path)
    assert LedgerJob.from_json(job.to_json()) == job
    assert load_config("demo").ledger_job().law is None
    with pytest.raises(TokenmillError, match=r"cost\.ladder = none\.json"):
        load_config("demo", None, ["cost.ladder=none.json"]).ledger_job()


def recorded(ladder, **changes):
    values = json.loads(RECORDED.read_text())
    ledger = Ledger.model_validate(values["ledger"])
    given = {
        "params": ledger.model.params_total,
        "params_active": ledger.model.params_total,
        "effective_tokens": ledger.training.effective_tokens,
        "vocab_size": 4096,
    }
    ledger.guidance.ladder = expected_by_ladder(ladder.law("l.json"), **{**given, **changes})
    return ledger, CostReport.model_validate(values["cost_report"])


def test_a_runs_table_has_it_beside_what_was_measured(ladder):
    ledger, cost = recorded(ladder)
    expected = ledger.guidance.ladder.bits_per_byte
    table = table_of_screen(summary_table(ledger, cost))
    (row,) = (row for row in table.rows if row[0].startswith("bits per byte"))
    assert row[1].startswith(f"{expected.value:.3f} [")
    measured = cost.quality.evaluation.total["bits_per_byte"]
    assert row[2] == f"{measured:.3f}"
    assert row[3] == f"{measured / expected.value:.2f}"
    before = table_of_screen(summary_table(ledger, None))
    assert any(row[0].startswith("bits per byte") for row in before.rows)
    assert not any("l.json" in note for note in notes(ledger))


def test_a_run_says_why_the_ladder_says_nothing(ladder):
    ledger, cost = recorded(ladder, vocab_size=512)
    table = table_of_screen(summary_table(ledger, cost))
    assert not any(row[0].startswith("bits per byte") for row in table.rows)
    assert any("l.json" in note and "vocabulary" in note for note in notes(ledger))


def test_the_page_of_a_run_has_fitted_and_published_constants(ladder):
    ledger, cost = recorded(ladder)
    run = RunDocuments(run_id="", ledger=ledger, cost_report=cost)
    (law,) = (table for title, table in cost_section(run).tables if title.startswith("The law"))
    assert [row[0] for row in law.rows] == ["e", "a", "b", "alpha", "beta", "gamma"]
    assert law.headings[-2:] == ("Besiroglu et al. 2024", "Hoffmann et al. 2022")
    assert law.rows[3][-1] == "0.34"
