"""What studies refuse before anything is prepared, and that an error says whose it is."""

import io

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.loader import load_config
from pipeline.report.console import RunConsole
from pipeline.studies.proxy_runs import StudyBudget
from pipeline.studies.session import Study
from pipeline.studies.value import ValueOptions, measure_value
from pipeline.studies.value_corpora import prepare_variants
from pipeline.studies.variants import read_variants
from tokenmill.errors import TokenmillError


def screen():
    return RunConsole(io.StringIO(), errors=io.StringIO())


@pytest.mark.parametrize("command", ["ladder", "value"])
@pytest.mark.parametrize("limit", ["--max-usd", "--max-minutes"])
@pytest.mark.parametrize("number", ["nan", "inf", "0"])
def test_a_limit_is_a_finite_number_above_zero(command, limit, number):
    done = CliRunner().invoke(cli, [command, limit, number])
    assert done.exit_code == 2
    assert limit in done.output


@pytest.mark.parametrize("number", ["nan", "0", "100"])
def test_a_margin_is_a_share(number):
    done = CliRunner().invoke(cli, ["value", "a:curate.rules=none", "--margin", number])
    assert done.exit_code == 2
    assert "--margin" in done.output


@pytest.fixture
def config(tmp_path):
    """A configuration of a directory where a document is, too short to be curated."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("A document.")
    return load_config(
        "demo", overrides=[f"corpus.input=['{texts}']", f"run.output_dir={tmp_path / 'out'}"]
    )


def test_held_out_files_are_read_before_anything_is_prepared(config, tmp_path):
    variants = read_variants(config, ["curate.rules=none"])
    with pytest.raises(TokenmillError, match=r"--held-out nowhere\.txt"):
        prepare_variants(config, variants, ["nowhere.txt"], screen())
    assert not (tmp_path / "out").exists()


def test_a_single_variant_is_compared_with_nothing(config, tmp_path):
    options = ValueOptions(
        variants=("base",), sources=False, mixture=False, held_out=(), equal="tokens",
        budget=StudyBudget(), seeds=3, margin=0.005, params=150_000, steps=8,
    )  # fmt: skip
    with pytest.raises(TokenmillError, match="base is the only variant"):
        measure_value(Study(config, str(tmp_path), screen()), options)
