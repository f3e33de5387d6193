"""What lm-evaluation-harness writes, read and kept.

lm_eval_output/ is what version 0.4.13 wrote with its model "dummy", which answers at random:
lm_eval run --model dummy --tasks cloze.yaml bits_per_byte.yaml --limit 3 --log_samples
"""

import json
import math
import pathlib
import shutil

import pytest

from serving.benchmark.environment import harness_variables
from serving.benchmark.harness import keep_results
from tokenmill.errors import TokenmillError

WRITTEN = pathlib.Path(__file__).parent / "lm_eval_output"


@pytest.fixture
def written(tmp_path):
    shutil.copytree(WRITTEN, tmp_path / "written")
    (tmp_path / "output").mkdir()
    return tmp_path / "written", tmp_path / "output"


def test_numbers_errors_chance_and_samples_are_read(written):
    source, output = written
    kept = keep_results(str(source), str(output), {"cloze": {"acc": 0.025}})
    assert kept.version == "0.4.13"
    cloze, bits = kept.tasks["cloze"], kept.tasks["bits_per_byte"]
    assert (cloze.items, cloze.version, cloze.samples) == (3, "1", "samples_cloze.jsonl")
    samples = [json.loads(x) for x in (output / cloze.samples).read_text().splitlines()]
    values = [sample["perplexity"] for sample in samples]
    perplexity = cloze.metrics["perplexity"]
    assert perplexity.value == pytest.approx(math.exp(-sum(values) / 3))
    assert perplexity.standard_error > 0
    assert not perplexity.higher_is_better
    assert perplexity.chance is None
    assert cloze.metrics["acc"].chance == 0.025
    assert cloze.metrics["acc"].higher_is_better
    assert set(bits.metrics) == {"bits_per_byte"}
    assert bits.metrics["bits_per_byte"].standard_error is None  # "N/A"
    assert len(list(output.glob("results_*.json"))) == 1


def test_filters_and_numbers_that_are_not_finite(written):
    source, output = written
    (path,) = source.glob("*/results_*.json")
    values = json.loads(path.read_text())
    values["results"]["cloze"]["acc,strict"] = 1.0
    values["results"]["cloze"]["perplexity,none"] = math.inf
    path.write_text(json.dumps(values))
    metrics = keep_results(str(source), str(output), {}).tasks["cloze"].metrics
    assert metrics["acc,strict"].value == 1.0
    assert metrics["perplexity"].value is None


@pytest.mark.parametrize(
    ("lost", "message"),
    [("samples_cloze*", "has not written the samples of cloze"), ("results*", "without results")],
)
def test_what_the_harness_could_not_write_is_an_error(written, lost, message):
    source, output = written
    for path in source.glob(f"*/{lost}"):
        path.unlink()
    with pytest.raises(TokenmillError, match=message):
        keep_results(str(source), str(output), {})


def test_the_harness_runs_without_what_chooses_another_python(monkeypatch):
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "UV_PYTHON", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "x")
    variables = harness_variables(ONE="1")
    assert variables["ONE"] == "1"
    assert variables["PIP_INDEX_URL"] == "x"  # where packages come from is the user's
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "UV_PYTHON"} & set(variables)
