"""What benchmark tasks have to reach, and which keys are refused."""

import pytest
from pydantic import ValidationError

from components.evaluate.benchmarks import below_thresholds, resolve_benchmarks
from pipeline.config import Config
from tokenmill.contracts.benchmark import BenchmarkMetric, BenchmarkTaskResult
from tokenmill.errors import TokenmillError


def task(**values):
    """A task of 9 items; what begins with "p" is better the smaller it is."""
    return BenchmarkTaskResult(
        items=9,
        version="1",
        samples="samples.jsonl",
        metrics={
            name: BenchmarkMetric(
                value=value, standard_error=None, chance=None, higher_is_better=name[0] != "p"
            )
            for name, value in values.items()
        },
    )


RESULTS = {"cloze": task(acc=0.25, perplexity=20.0, precision=None)}


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        ({"cloze/acc": 0.25, "cloze/perplexity": 20.0}, []),
        ({"cloze/acc": 0.3}, ["cloze/acc is 0.25, wanted at least 0.3, missed by 0.05"]),
        (
            {"cloze/perplexity": 12.5},
            ["cloze/perplexity is 20, wanted at most 12.5, missed by 7.5"],
        ),
        (
            {"cloze/precision": 1, "cloze/f1": 1},
            [
                f"cloze/{name} could not be measured, wanted 1 or better; measured were acc, "
                "perplexity, precision"
                for name in ("precision", "f1")
            ],
        ),
    ],
)
def test_a_number_worse_than_its_threshold_is_said(threshold, said):
    assert below_thresholds(RESULTS, threshold) == said


def test_thresholds_on_what_is_not_measured_are_refused():
    assert [each.name for each in resolve_benchmarks(["cloze"], {"cloze/acc": 1.0})] == ["cloze"]
    for given, name in (
        (["cloze"], "cloze/f1"),
        (["cloze"], "continuation/acc"),
        ([], "cloze/acc"),
    ):
        with pytest.raises(TokenmillError, match="is not measured; expected") as error:
            resolve_benchmarks(given, {name: 0.5})
        assert name in str(error.value)


def test_a_threshold_of_a_filter_and_of_a_file_without_metrics(tmp_path):
    (tmp_path / "open.yaml").write_text("task: open\n")
    tasks = ["cloze", str(tmp_path / "open.yaml")]
    resolve_benchmarks(tasks, {"cloze/acc,strict": 1.0, "open/anything": 1.0})


@pytest.mark.parametrize("task", ["masked-lm", "classification"])
def test_benchmarks_of_other_tasks_are_refused(task):
    with pytest.raises(ValidationError, match=r"evaluate.benchmarks = \['cloze'\]: a model of"):
        Config.model_validate({
            "train": {"task": task}, "model": {"classes": 2 * (task == "classification")},
            "evaluate": {"benchmarks": ["cloze"]},
        })  # fmt: skip
