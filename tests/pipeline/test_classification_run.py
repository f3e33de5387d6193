"""Fine-tuning for classification through the real pipeline: labels in a file to a pushed model."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

from components.ingest.transforms import split_of
from components.train.telemetry.metrics_log import read_metrics
from tokenmill.contracts.curation import read_dropped
from tokenmill.files import read_json
from tokenmill.records.documents import read_documents

PACKAGES = ("apache-beam", "scikit-learn")
EVAL_FRACTION = 0.2
UNLABELLED, ODD = 30, 10
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "tasks.md"


def config_of_the_docs() -> str:
    """What docs/tasks.md gives to copy."""
    section = DOCS.read_text("utf-8").split("## Classification")[1]
    return section.split("```toml\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def labeled(workspace, tmp_path_factory):
    """A workspace of two packages' docstrings, the package being the label; some have none.

    Some held-out documents have a label that training never sees.
    """
    from data.embedded_corpus import ensure_embedded_corpus

    by_package = {name: [] for name in PACKAGES}
    with open(ensure_embedded_corpus().path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["source"] in by_package and len(record["text"]) > 100:
                by_package[record["source"]].append(record)
    records = []
    for name, mine in by_package.items():
        for i, record in enumerate(mine[:600]):
            made = {"id": record["id"], "text": record["text"], "source": "docstrings"}
            # The words that would tell at once go.
            made["text"] = made["text"].replace(name.split("-")[1], "thing")
            if i >= UNLABELLED // 2:
                made["label"] = name
            records.append(made)
    held_out = [r for r in records if split_of(r["text"].encode(), EVAL_FRACTION) == "eval"]
    for record in held_out[-ODD:]:
        record["label"] = 7
    root = tmp_path_factory.mktemp("labeled")
    corpus = root / "corpus"
    corpus.mkdir()
    (corpus / "documents.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    labeled = type(workspace)(root, corpus)
    labeled.config.write_text(config_of_the_docs())
    return labeled


@pytest.fixture(scope="module")
def run(labeled):
    run = labeled.run("--set", "execution.evaluate_steps=60")
    assert run.exit_code == 0, run.output
    return run


def artifact(run, path):
    (found,) = (run.home / "artifacts").glob(path)
    return found


def manifest_of(run, split):
    return read_json(str(artifact(run, f"Packer/packed_rows/*/Split-{split}/manifest.json")))


def version_of(run):
    (version,) = (run.home / "serving_model").iterdir()
    return version


def test_it_learns_the_class(run):
    quality = run.report()["cost_report"]["quality"]
    total = quality["evaluation"]["total"]
    assert total["accuracy"] > quality["majority_accuracy"] + 0.15
    assert total["auc"] > 0.8
    assert total["log_loss"] < quality["prior_log_loss"]
    assert total["accuracy_ci95_low"] < total["accuracy"] < total["accuracy_ci95_high"]
    f1 = [total[f"f1_of_{name}"] for name in PACKAGES]
    assert total["macro_f1"] == pytest.approx(np.mean(f1))
    assert set(quality["evaluation"]["by_source"]) == {"docstrings"}
    assert "bits_per_byte" not in total


def test_rows_and_raw_text_give_the_same_answer(run):
    """The trainer's held-out rows and the pushed model on raw text are the same documents."""
    quality = run.report()["cost_report"]["quality"]
    total, rows = quality["evaluation"]["total"], quality["eval_after"]
    assert total["evaluated_documents"] == rows["loss_tokens"] == manifest_of(run, "eval")["rows"]
    assert total["accuracy"] == pytest.approx(rows["accuracy"], abs=1e-6)
    assert total["log_loss"] == pytest.approx(rows["loss"], rel=1e-4)


def test_documents_without_a_known_label_are_left_out_and_counted(run):
    manifests = [manifest_of(run, split) for split in ("train", "eval")]
    assert [m["label_names"] for m in manifests] == [list(PACKAGES)] * 2
    assert 0 < sum(m["dropped_no_label"] for m in manifests) <= UNLABELLED
    unknown = manifests[1]["dropped_unknown_label"]
    assert manifests[0]["dropped_unknown_label"] == 0 < unknown <= ODD
    for m in manifests:
        dropped = sum(m[f"dropped_{why}"] for why in ("empty", "no_label", "unknown_label"))
        assert m["documents"] == m["rows"] + dropped
        assert m["tokens"] == m["loss_tokens"] + m["dropped_tokens"] + m["truncated_tokens"]
        assert m["truncated_tokens"] > 0
    stages = {s["stage"]: s for s in run.report()["ledger"]["funnel"]["total"]["stages"]}
    assert stages["packed"]["documents_lost"] == {
        "no_label": sum(m["dropped_no_label"] for m in manifests), "unknown_label": unknown,
    }  # fmt: skip
    assert stages["packed"]["tokens"] == sum(m["loss_tokens"] for m in manifests)
    assert "documents without a label left out" in run.report_text()


def test_the_ledger_forecasts_what_training_computes(run):
    report = run.report()
    training = report["ledger"]["training"]
    actual = report["cost_report"]["actual"]
    assert actual["slots"] == pytest.approx(training["slots"], rel=0.05)
    manifest = manifest_of(run, "train")
    assert training["loss_tokens"] == pytest.approx(manifest["loss_tokens"] * training["epochs"])
    (metrics,) = (run.home / "artifacts").glob("Trainer/model_run/*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    evaluated = [line for line in lines if line.get("event") == "evaluation"]
    assert all(0 <= line["eval_accuracy"] <= 1 for line in evaluated)
    assert len(evaluated) == (training["steps"] - 1) // 60
    last = read_metrics(str(metrics))[-1]
    assert last["trained_loss_tokens"] == training["steps"] * 16
    assert last["effective_tokens"] == pytest.approx(training["effective_tokens"], rel=0.02)
    assert "examples/s" in run.step_lines()["Trainer"]


def test_the_pushed_model_classifies(run):
    model = tf.saved_model.load(str(version_of(run)))
    assert {"serving_default", "classify", "classify_ids", "evaluate"} <= set(model.signatures)
    texts = [
        "Fit the estimator to X, an array of shape (n_samples, n_features).",
        "A PTransform that takes a PCollection and applies a DoFn to each element.",
    ]
    answer = model.signatures["serving_default"](text=tf.constant(texts))
    labels = answer["labels"].numpy()
    assert labels.tolist() == [[name.encode() for name in PACKAGES]] * 2
    best = answer["probabilities"].numpy().argmax(-1)
    assert answer["label"].numpy().tolist() == [labels[i, best[i]] for i in range(2)]
    assert answer["label"].numpy().tolist() == [b"scikit-learn", b"apache-beam"]
    assert (answer["token_count"].numpy() > 0).all()


def test_it_scores_documents_for_another_run(labeled, run, tmp_path):
    """The imported classifier's scores decide what is curated, and are in the documents."""
    config = tmp_path / "scored.toml"
    config.write_text(
        f"""
        [corpus]
        eval_fraction = {EVAL_FRACTION}
        [tokenizer]
        vocab_size = 800
        [curate]
        rules = "none"
        decontaminate = "off"
        [curate.quality]
        classifier = "{version_of(run)}"
        positive = ["label:scikit-learn"]
        min_score = 0.5
        """
    )
    scored = tmp_path / "run"
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "--estimate", "--config", str(config),
         "--input", str(labeled.corpus), "--set", f"run.output_dir={scored}"],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "scores by a classifier: scikit-learn" in result.stdout
    served = tf.saved_model.load(str(version_of(run))).signatures["classify"]
    kept = 0
    for path in sorted(scored.glob("artifacts/Curator/curated_examples/*/Split-*/*.gz")):
        for batch in read_documents(str(path)):
            for text, score in zip(
                *(batch.column(name).to_pylist() for name in ("text", "quality_score")), strict=True
            ):
                found = served(text=tf.constant([text]))["probabilities"].numpy()[0, 1]
                assert score == pytest.approx(found, abs=1e-4)
                assert score >= 0.5
                kept += 1
    (dropped,) = scored.glob("artifacts/Curator/dropped/*")
    records = [r for r in read_dropped(str(dropped)) if r.reason == "low_quality"]
    assert kept > 200
    assert len(records) > 200
    for record in records[:20]:
        assert record.value < record.threshold == 0.5


def test_the_commands_answer(run):
    base = str(run.home / "serving_model")
    command = [sys.executable, "-m", "pipeline.cli", "classify", "A PCollection", "--model", base]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["labels"] == list(PACKAGES)
    assert answer["label"] == answer["labels"][int(np.argmax(answer["probabilities"]))]
    assert "tokenmill classify" in run.output


@pytest.mark.slow  # runs of their own
def test_a_threshold_keeps_it_back(labeled, run):
    again = labeled.run(
        "--set", "execution.evaluate_steps=60",
        "--set", "evaluate.min_accuracy=1.0", "--set", "evaluate.max_accuracy_decrease=0.5",
    )  # fmt: skip
    assert again.exit_code == 1
    assert "accuracy is" in again.said
    assert "wanted at least 1, missed by" in again.said


@pytest.mark.slow
def test_it_starts_from_a_masked_language_model(workspace, labeled, run):
    (labeled.root / "masked").mkdir()
    masked = type(workspace)(labeled.root / "masked", labeled.corpus)
    lines = config_of_the_docs().splitlines(keepends=True)
    masked.config.write_text("".join(x for x in lines if not x.startswith(("min_", "classes"))))
    pretrained = masked.run(
        "--set", "run.name=masked", "--set", "train.task=masked-lm", "--set", "train.max_steps=40",
        "--set", "evaluate.beat_baseline=false",
    )  # fmt: skip
    assert pretrained.exit_code == 0, pretrained.output
    (version,) = (masked.home / "serving_model").iterdir()
    tuned = labeled.run(
        "--output-dir", str(labeled.root / "tuned"),
        "--set", f"model.base_model={version}",
        "--set", f"tokenizer.path={version}/assets.extra/tokenizer.model",
        "--set", "evaluate.min_accuracy=0", "--set", "evaluate.min_macro_f1=0",
        "--set", "train.max_steps=40", "--set", "evaluate.beat_baseline=false",
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output


@pytest.mark.slow
def test_a_wrong_number_of_classes_stops_the_run(labeled):
    home = str(labeled.root / "classes-wrong")
    run = labeled.run("--output-dir", home, "--set", "model.classes=3")
    assert run.exit_code == 1
    assert "model.classes = 3, but 1,200 documents have 2 labels" in run.said
