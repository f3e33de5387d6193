"""Benchmark tasks in a run: kept out of train, scored before the push, recorded, in the card."""

import json
import os
import re

import pytest
from command_line import tokenmill

from data.embedded_corpus import ensure_embedded_corpus
from tokenmill.contracts.benchmark import read_benchmark
from tokenmill.contracts.cost_report import read_cost_report
from tokenmill.contracts.curation import read_curation

pytestmark = pytest.mark.slow

RUN = (
    "corpus.eval_fraction=0.1", "curate.rules=code-docs", "tokenizer.vocab_size=1200",
    "model.layers=2", "model.d_model=96", "model.heads=4", "model.d_ff=384",
    "model.sequence_length=128", "train.global_batch_size=16", "train.max_steps=150",
    "train.epochs=3", "train.learning_rate=4e-3", "cost.mfu=0.4",
    'evaluate.benchmarks=["cloze","continuation"]', "curate.decontaminate=off",
)  # fmt: skip
LEAKED = 3


def cloze(number):
    from tokenmill.benchmark_tasks import find_tasks

    (task,) = find_tasks(["cloze"], "--tasks")
    with open(task.data_files[0], encoding="utf-8") as lines:
        return json.loads(lines.read().splitlines()[number])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Part of the embedded corpus, and some texts that hold a benchmark's."""
    path = tmp_path_factory.mktemp("source") / "texts.jsonl"
    with open(ensure_embedded_corpus().path, encoding="utf-8") as lines:
        chosen = [line for line, _ in zip(lines, range(0, 1500), strict=False)]
    for number in range(LEAKED):
        text = f"Somebody has copied this: {cloze(number)['context']} and so on."
        chosen.append(json.dumps({"id": f"leaked{number}", "source": "leak", "text": text}) + "\n")
    path.write_text("".join(chosen), encoding="utf-8")
    return path


def run(source, home, *more):
    settings = [word for setting in (*RUN, *more) for word in ("--set", setting)]
    return tokenmill("run", "--input", source, "--output-dir", home, *settings, timeout=900)


@pytest.fixture(scope="module")
def pushed(source, tmp_path_factory):
    """A run whose model is pushed: its home, its version, what it said."""
    home = tmp_path_factory.mktemp("benchmarks") / "run"
    result = run(source, home, 'curate.benchmark_tasks=["cloze"]',
                 'evaluate.benchmark_thresholds={"continuation/acc"=0.05}')  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (version,) = os.listdir(home / "serving_model")
    return home, home / "serving_model" / version, result.stdout


def newest(home, step, key):
    directory = home / "artifacts" / step / key
    return str(directory / max(os.listdir(directory), key=int))


def test_benchmark_texts_are_kept_out_of_train_and_counted(pushed):
    home, _, said = pushed
    curation = read_curation(newest(home, "Curator", "dropped"))
    assert curation.benchmarks.documents == LEAKED
    assert curation.benchmarks.texts == 400
    assert f"{LEAKED} train documents had a benchmark text" in " ".join(said.split())


def test_the_evaluator_scores_them_and_the_report_shows_them(pushed):
    home, _, said = pushed
    evaluation = newest(home, "Evaluator", "evaluation")
    report = read_benchmark(os.path.join(evaluation, "benchmark"))
    assert set(report.tasks) == {"cloze", "continuation"}
    with open(os.path.join(evaluation, "benchmark", "samples_cloze.jsonl")) as lines:
        assert sum(1 for _ in lines) == 200
    quality = read_cost_report(newest(home, "CostReport", "cost_report")).quality
    assert quality.evaluation.benchmarks == report.tasks
    value = report.tasks["continuation"].metrics["acc"].value
    assert re.search(rf"Benchmarks: .*continuation acc {value:.4g}", said)
    text = sorted((home / "logs").glob("*/report.txt"))[0].read_text()
    assert re.search(rf"continuation +acc +{value:.4g}", text)


def test_what_misses_a_threshold_is_not_pushed(pushed, source):
    home, _, _ = pushed
    result = run(source, home, 'curate.benchmark_tasks=["cloze"]',
                 'evaluate.benchmark_thresholds={"continuation/acc"=0.99}')  # fmt: skip
    assert len(os.listdir(home / "serving_model")) == 1
    said = " ".join((result.stdout + result.stderr).split())
    assert re.search(r"continuation/acc is 0\.\d+, wanted at least 0\.99, missed by 0\.\d+", said)
    assert re.search(r"Trainer +cached", said)  # a threshold trains nothing


def test_the_command_records_what_it_measured(pushed, tmp_path):
    home, version, _ = pushed
    result = tokenmill("benchmark", home / "serving_model", "--tasks", "bits_per_byte", "--json",
                       timeout=600)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "not recorded" not in result.stderr
    measured = json.loads(result.stdout)["tasks"]["bits_per_byte"]["metrics"]["bits_per_byte"]
    assert 1.0 < measured["value"] < 5.0  # 8 is chance
    lineage = json.loads(tokenmill("lineage", version, "--json").stdout)
    assert lineage["benchmarks"]["bits_per_byte"]["metrics"]["bits_per_byte"] == measured
    assert set(lineage["benchmarks"]) == {"bits_per_byte", "cloze", "continuation"}
    runs = tokenmill("runs", "--run", home).stdout
    assert "ended after" not in runs  # a benchmark is no step
    card = tmp_path / "exported"
    exported = tokenmill("export", "hf", version, card, timeout=300)
    assert exported.returncode == 0, exported.stderr
    row = f"| bits_per_byte | bits_per_byte | {measured['value']:.4g} |  | 8 | 263 |"
    assert row in (card / "README.md").read_text(encoding="utf-8")
    again = tokenmill("gc", home, "--keep", "1", "--yes")
    assert again.returncode == 0, again.stderr
    assert json.loads(tokenmill("lineage", version, "--json").stdout)["benchmarks"]
