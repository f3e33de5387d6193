"""The true pipeline on real text: artifacts, ML Metadata, accounts, cache, gates, the model."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import ml_metadata as mlmd
import pytest
import tensorflow as tf
import tomli
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2
from screen_size import assert_fits
from test_report_page import check_is_safe, rows_of, text_of

from pipeline.cli import cli
from tokenmill.contracts.samples import find_samples
from tokenmill.contracts.training import read_telemetry
from tokenmill.metadata.step_records import CONFIG_PROPERTY
from tokenmill.metadata.store import open_store
from tokenmill.number_format import usd
from tokenmill.records.documents import decode_documents

STEPS = (
    "CorpusExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "AnomalyGate",
    "Curator", "TokenizerTrainer", "Transform", "Packer", "Calibrator", "TokenLedger", "Trainer",
    "Evaluator", "CostReport", "Pusher", "ReportPage",
)  # fmt: skip


def store_of(run) -> mlmd.MetadataStore:
    return open_store(str(run.home / "metadata.sqlite"))


def newest_artifact(run, type_name: str) -> metadata_store_pb2.Artifact:
    return max(store_of(run).get_artifacts_by_type(type_name), key=lambda a: a.id)


def newest_json(run, type_name: str, name: str) -> dict:
    return json.loads((pathlib.Path(newest_artifact(run, type_name).uri) / name).read_text())


def documents(uri: str, split: str) -> list[dict]:
    files = sorted(str(p) for p in pathlib.Path(uri, f"Split-{split}").iterdir())
    records = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
    return decode_documents(records).to_pylist()


def test_every_step_prints_one_line(first_run):
    assert tuple(first_run.step_lines()) == STEPS
    for noise in ("WARNING", "tensorflow/", "absl", "Traceback"):
        assert noise not in first_run.output


def test_a_run_leaves_its_page(first_run):
    (page,) = re.findall(r"^Report: (.*/report\.html)$", first_run.output, re.MULTILINE)
    logs = pathlib.Path(page).parent
    written = (logs / "report.html").read_text()
    check_is_safe(written)
    numbers = json.loads((logs / "report.json").read_text())
    text = text_of(written)
    assert f"{numbers['ledger']['training']['effective_tokens']:,.0f}" in text
    for source in numbers["ledger"]["funnel"]["by_source"]:
        assert source in text
    bits = numbers["cost_report"]["quality"]["evaluation"]["total"]["bits_per_byte"]
    assert f"{bits:.3f}" in text
    assert "German" in text or "german" in text
    index = (first_run.home / "index.html").read_text()
    check_is_safe(index)
    pages = re.findall(r'href="(\./[^"]*report.html)"', index)
    assert any((logs / "report.html").samefile(first_run.home / page) for page in pages)
    assert f"{bits:.3f}" in text_of(index)
    for address in re.findall(r'href="(\./[^"]*artifacts[^"]*)"', written):
        assert (logs / address).exists()
    evaluation = numbers["cost_report"]["quality"]["evaluation"]
    bins, total = evaluation["calibration"], evaluation["total"]
    assert sum(each["count"] for each in bins) == total["evaluated_tokens"]
    gaps = [abs(each["confidence"] - each["accuracy"]) * each["count"] for each in bins]
    assert sum(gaps) / total["evaluated_tokens"] == pytest.approx(total["calibration_error"])
    assert "Calibration: share of first guesses that are right" in text
    telemetry = json.loads(
        pathlib.Path(newest_artifact(first_run, "ModelRun").uri, "telemetry.json").read_text()
    )
    assert telemetry["versions"]["tensorflow"] == tf.__version__
    assert f"{telemetry['machine']['vcpus']} cores" in text
    (made,) = store_of(first_run).get_artifacts_by_type("system.HTML")  # what engines show
    page = pathlib.Path(made.uri, "report.html").read_text()
    check_is_safe(page)
    assert f"{numbers['ledger']['training']['effective_tokens']:,.0f}" in text_of(page)
    assert "Blessed and pushed" in text_of(page)


def test_the_trainer_leaves_samples_that_the_page_shows(first_run):
    (path,) = first_run.home.glob("artifacts/Trainer/model_run/*/samples.json")
    samples = find_samples(str(path.parent))
    steps = read_telemetry(str(path.parent)).steps
    assert [point.step for point in samples.points] == [0, steps // 2, steps]
    assert all(sample.expected for point in samples.points for sample in point.samples)
    assert samples.attention.layers
    report = first_run.report()
    (phase,) = [p for p in report["cost_report"]["phases"] if p["phase"] == "samples"]
    assert phase["actual_seconds"] > 0
    assert phase["forecast_seconds"] > 0
    page = next(first_run.home.glob("logs/*/report.html")).read_text()
    assert "Samples of held-out texts" in page
    assert "Attention of layer 0" in page


def test_the_pushed_version_carries_its_card(first_run):
    (card,) = first_run.home.glob("serving_model/*/README.md")
    text, report = card.read_text(), first_run.report()
    assert (card.parent / "saved_model.pb").exists()
    assert f"pushed as version {card.parent.name}." in text
    assert f"{report['ledger']['training']['effective_tokens']:,.0f} effective tokens" in text
    bits = report["cost_report"]["quality"]["evaluation"]["total"]["bits_per_byte"]
    assert f"{bits:.3f}" in text
    assert str(first_run.home) not in text  # it goes where the version goes


def test_runs_are_compared_by_their_directories_or_logs(first_run, tmp_path):
    """The same run beside a copy of it; the log names the run in either."""
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("logs", "artifacts"):
        (copied / name).symlink_to(first_run.home / name)
    shutil.copy(first_run.home / "metadata.sqlite", copied)
    (own,) = re.findall(r"^Report: (.*/report\.html)$", first_run.output, re.MULTILINE)
    log = pathlib.Path(own).parent

    def report(*words):
        return CliRunner().invoke(cli, ["report", *map(str, words)])

    output = tmp_path / "both.html"
    result = report(log, copied / "logs" / log.name, "--output", output)
    assert result.output.strip() == str(output), result.output
    page = output.read_text()
    check_is_safe(page)
    assert "Nothing: the runs have the same settings." in text_of(page)
    quality = json.loads((log / "report.json").read_text())["cost_report"]["quality"]
    bits = quality["evaluation"]["total"]["bits_per_byte"]
    assert ["bits per byte", f"{bits:.3f}", f"{bits:.3f}"] in rows_of(page)
    (linked, _) = re.findall(r'href="(\./[^"]*report.html)"', page)
    assert (tmp_path / linked).samefile(own)
    assert report(log).output.strip() == own
    for words in ((log, log), (log, "--output", output), (tmp_path, log), (log, log.parent / "x")):
        assert report(*words).exit_code == 1, words


def test_ml_metadata_has_every_execution_and_the_config(first_run):
    store = store_of(first_run)
    executions = store.get_executions()
    completed = [
        e for e in executions if e.last_known_state == metadata_store_pb2.Execution.COMPLETE
    ]
    assert len(completed) >= len(STEPS)
    (run_context, *_) = store.get_contexts_by_type("pipeline_run")
    recorded = tomli.loads(run_context.custom_properties[CONFIG_PROPERTY].string_value)
    assert recorded["model"]["d_model"] == 96


def test_documents_are_accounted_for_from_file_to_row(first_run, workspace):
    lines = (workspace.corpus / "documents.jsonl").read_text().splitlines()
    counts = newest_json(first_run, "components.Quarantine", "counts.json")
    curation = newest_json(first_run, "components.DroppedDocuments", "curation.json")["total"]
    # ingest: every line and file is a document or quarantined for a reason
    assert counts["read"]["documents"] == len(lines) - len(workspace.bad_lines) + 2
    assert counts["repaired"] == {"cp1252": 1}
    reasons = {k: v["documents"] for k, v in counts["quarantined"]["by_reason"].items()}
    assert reasons == {"invalid_json": 1, "missing_text": 1, "not_utf8": 1}
    # curation: in = kept + dropped by reason, in documents and in bytes
    dropped = curation["dropped"]
    assert curation["in"] == {k: counts["read"][k] for k in ("documents", "bytes")}
    for unit, kept_unit in (("documents", "documents"), ("bytes", "raw_bytes")):
        gone = sum(numbers[unit] for numbers in dropped.values())
        assert curation["in"][unit] == curation["kept"][kept_unit] + gone
    assert dropped["exact_duplicate"]["documents"] >= 40
    # what lies on disk is what was counted
    curated_uri = _uri_by_step(first_run, "curated_examples")
    kept = [d for split in ("train", "eval") for d in documents(curated_uri, split)]
    assert len(kept) == curation["kept"]["documents"]
    assert sum(d["byte_count"] for d in kept) == curation["kept"]["bytes"]
    assert len({d["text"] for d in kept}) == len(kept)


def _uri_by_step(run, key: str) -> str:
    return max(
        (str(p) for p in (run.home / "artifacts").glob(f"*/{key}/*")),
        key=lambda p: int(p.rsplit("/", 1)[1]),
    )


def test_tokens_are_accounted_for_from_transform_to_ledger(first_run):
    ledger = newest_json(first_run, "components.Ledger", "ledger.json")
    curation = newest_json(first_run, "components.DroppedDocuments", "curation.json")
    transformed = _uri_by_step(first_run, "transformed_examples")
    for split in ("train", "eval"):
        files = [str(p) for p in pathlib.Path(transformed, f"Split-{split}").iterdir()]
        tokens = count = 0
        for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            tokens += len(example.features.feature["token_ids"].int64_list.value)
            count += 1
        packing = ledger["packing"][split]
        assert packing["tokens"] == tokens
        kept = curation["splits"][split]["by_source"].values()
        assert count == sum(source["kept"]["documents"] for source in kept)
        # a target for each token and each document's end; the other slots are padding
        assert packing["slots"] - packing["padding_slots"] == tokens + count
    total = ledger["funnel"]["total"]
    assert total["train"]["tokens"] + total["eval"]["tokens"] == total["curated"]["tokens"]


def test_every_language_is_accounted_for_from_curation_to_the_bill(first_run):
    report = first_run.report()
    ledger, cost = report["ledger"], report["cost_report"]
    by_language = ledger["by_language"]
    assert {"en", "de"} <= set(by_language)
    for split in ("train", "eval"):
        found: dict[str, dict[str, int]] = {}
        sums = {}
        for document in documents(_uri_by_step(first_run, "curated_examples"), split):
            counts = found.setdefault(document["language"].decode(), {"documents": 0, "bytes": 0})
            counts["documents"] += 1
            counts["bytes"] += document["byte_count"]
        transformed = _uri_by_step(first_run, "transformed_examples")
        files = [str(p) for p in pathlib.Path(transformed, f"Split-{split}").iterdir()]
        for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            language = feature["language"].bytes_list.value[0].decode()
            sums[language] = sums.get(language, 0) + len(feature["token_ids"].int64_list.value)
        assert sums.keys() == found.keys()
        for language, text in by_language.items():
            counts = found.get(language, {"documents": 0, "bytes": 0})
            assert {name: text[split][name] for name in counts} == counts
            assert text[split]["tokens"] == sums.get(language, 0)
    usd = sum(text["compute_usd"] for text in by_language.values())
    assert usd == pytest.approx(ledger["cost"]["compute_usd"])
    # The Evaluator, which reads the curated text itself, counts what the packer counted.
    evaluated = cost["quality"]["evaluation"]["by_language"]
    for language, text in by_language.items():
        tokens = evaluated.get(language, {"evaluated_tokens": 0})["evaluated_tokens"]
        assert tokens == text["eval"]["loss_tokens"]
    text = first_run.report_text(0)
    for words in ("Training text by language", "Quality by language", "not known"):
        assert words in text


def test_training_data_holds_no_eval_text(first_run):
    uri = _uri_by_step(first_run, "curated_examples")
    train, held_out = ({d["text"] for d in documents(uri, s)} for s in ("train", "eval"))
    assert held_out
    assert not train & held_out


def test_the_model_learns(first_run):
    quality = first_run.report()["cost_report"]["quality"]
    trained = quality["evaluation"]["total"]["bits_per_byte"]
    assert trained < 0.85 * quality["unigram_bits_per_byte"]
    assert trained < 0.7 * quality["eval_before"]["bits_per_byte"]


def test_evaluator_from_raw_text_agrees_with_the_trainer_from_rows(first_run):
    """Tokenizing, cutting and scoring in the pushed graph is the same as packing and training."""
    quality = first_run.report()["cost_report"]["quality"]
    rows, text = quality["eval_after"], quality["evaluation"]["total"]
    assert text["evaluated_tokens"] == rows["loss_tokens"]
    assert text["bits_per_byte"] == pytest.approx(rows["bits_per_byte"], rel=1e-5)


def test_each_slicing_covers_every_evaluated_document(first_run):
    evaluation = first_run.report()["cost_report"]["quality"]["evaluation"]
    total = evaluation["total"]
    assert total["bits_per_byte_ci95_low"] < total["bits_per_byte"]
    assert total["bits_per_byte"] < total["bits_per_byte_ci95_high"]
    assert total["token_accuracy"] < total["token_accuracy_top5"] < 1
    assert 0 < total["calibration_error"] < 0.5
    for slices in ("by_source", "by_length", "by_language"):
        for unit in ("evaluated_documents", "evaluated_tokens"):
            assert sum(s[unit] for s in evaluation[slices].values()) == total[unit]
    assert len(evaluation["by_length"]) > 1
    assert "en" in evaluation["by_language"]


def test_the_bill_adds_up(first_run):
    report = first_run.report()
    ledger, cost = report["ledger"], report["cost_report"]
    hours = cost["actual"]["chip_hours"]
    assert cost["actual"]["compute_usd"] == pytest.approx(
        hours * ledger["price"]["usd_per_chip_hour"]
    )
    assert hours == pytest.approx(
        cost["actual"]["total_seconds"] * ledger["hardware"]["chips"] / 3600
    )
    assert cost["actual"]["total_flops"] == pytest.approx(ledger["flops"]["total_exact"])
    assert 0 < cost["actual"]["mfu"] < 1


def test_the_screen_fits_and_ends_with_the_table_and_the_line_to_try(first_run):
    for words in ("FLOPs", "estimated", "(unigram ", "bits per byte", "Pushed: ",
                  "tokenmill generate"):  # fmt: skip
        assert words in first_run.output
    assert_fits(first_run.output)
    text = first_run.report_text(0)
    for words in ("✓ Trainer", "Tokens by source", "exact duplicate", "unigram baseline"):
        assert words in text
    assert "Tokens by source" not in first_run.output


def test_pushed_model_takes_raw_text_in_a_process_without_tfx(first_run):
    base = first_run.home / "serving_model"
    (version,) = [p for p in base.iterdir() if p.name.isdigit()]
    assert {p.name for p in base.iterdir()} == {version.name}
    probe = pathlib.Path(__file__).with_name("probe_saved_model.py")
    result = subprocess.run(
        # -I: neither the current directory nor PYTHONPATH can bring this project in
        [sys.executable, "-I", str(probe), str(version)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["project_modules"] == []
    score = answer["score"]
    assert score["byte_count"] == [17, 0, 3000, 19, 17]
    assert score["token_count"][1] == 1  # an empty text is its end alone
    assert all(nll > 0 for nll in score["nll_sum"])
    assert score["nll_sum"][0] == pytest.approx(score["nll_sum"][4], rel=1e-5)
    # greedy text does not depend on the batch it came in; the same seed gives the same sample
    assert answer["several"]["text"][0] == answer["alone"]["text"][0]
    assert all(int(n) <= 12 for n in answer["several"]["completion_tokens"])
    assert answer["sampled"][0] == answer["sampled"][1]


def test_generate_command_answers(first_run):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli", "generate", "This function returns"),
            *("--model", str(first_run.home / "serving_model"), "--max-new-tokens", "8"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("This function returns")
    assert "tokens]" in result.stdout
    assert not result.stderr


def ask(*arguments) -> dict:
    command = [sys.executable, "-m", "pipeline.cli", *arguments, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_why_follows_a_document_to_its_rows_and_models_and_back(first_run):
    home = str(first_run.home)
    uri = _uri_by_step(first_run, "curated_examples")
    kept = documents(uri, "train")[3]["doc_id"].decode()
    found = ask("why", kept, "--run", home)
    (status,), (model,) = found["documents"], found["models"]
    assert status["status"] == "kept"
    assert status["metadata"]["url"].startswith("https://docs.example/")
    assert sum(place["length"] for place in status["placements"]) > 1
    assert model["pushed_to"]
    # 250 steps of 32 rows over fewer than 8000 rows: each is read once or twice
    assert set(model["times_trained_by_row"].values()) <= {1, 2}
    row = str(status["placements"][0]["row"])
    back = ask("why", "--row", row, "--run", home)["documents"]
    assert kept in [document["doc_id"] for document in back]


def test_why_says_by_which_rule_and_for_which_copy(first_run, workspace):
    home = str(first_run.home)
    rejected = [
        json.loads(r)
        for r in tf.data.TFRecordDataset(
            sorted(str(p) for p in pathlib.Path(_uri_by_step(first_run, "dropped")).glob("*.gz")),
            "GZIP",
        ).as_numpy_iterator()
    ]
    copy = next(r for r in rejected if r["reason"] == "exact_duplicate")
    (status,) = ask("why", copy["doc_id"], "--run", home)["documents"]
    assert (status["status"], status["kept_copy"]) == ("dropped", copy["kept_copy"])
    assert status["language"]
    assert status["metadata"]["url"].startswith("https://docs.example/")
    (status,) = ask("why", "denied", "--run", home)["documents"]
    assert (status["reason"], status["matched"]) == ("denied_url", "denied.example/private/")
    assert status["metadata"]["title"] == "A secret"
    (stays,) = ask("why", copy["kept_copy"], "--run", home)["documents"]
    assert stays["source"]
    quarantine = newest_artifact(first_run, "components.Quarantine").uri
    bad = json.loads(pathlib.Path(quarantine, "quarantine.jsonl").read_text().splitlines()[0])
    name = f"{bad['file']}:{bad['record']}" if bad["record"] else bad["file"]
    (status,) = ask("why", name, "--run", home)["documents"]
    assert (status["status"], status["reason"]) == ("quarantined", bad["reason"])


def test_the_report_accounts_for_every_step_and_second(first_run):
    cost = first_run.report()["cost_report"]
    steps = {step["step"]: step for step in cost["steps"]}
    untimed = {"SchemaGen", "ExampleValidator", "CostReport", "Pusher", "ReportPage"}
    assert set(steps) == set(STEPS) - untimed
    assert all(step["ran_in_this_run"] and step["seconds"] > 0 for step in steps.values())
    total = cost["actual"]["total_seconds"]
    assert sum(p["actual_seconds"] for p in cost["phases"]) == pytest.approx(total)
    difference = total - cost["estimated"]["total_seconds"]
    assert sum(r["seconds"] for r in cost["reasons"]) == pytest.approx(difference)
    assert {line["step"] for line in cost["return_on_curation"]} == {"Curator", "Packer"}


def test_the_forecast_was_measured(first_run):
    ledger = first_run.report()["ledger"]
    assert ledger["hardware"]["mfu_source"] == "measured"
    assert 0 < ledger["hardware"]["calibration"]["total_seconds"] < 300  # 20 on a quiet machine
    ratio = first_run.report()["cost_report"]["training_seconds_actual_over_estimated"]
    assert 0.3 < ratio < 3  # other work on the machine may disturb either side


def test_runs_are_compared_from_ml_metadata(first_run):
    first, *_ = ask("runs", "--run", str(first_run.home))
    cost = first_run_cost(first_run)
    assert first["actual"]["compute_usd"] == pytest.approx(cost["compute_usd"], rel=1e-2)
    assert first["estimated"]["effective_tokens"] > 0
    assert first["trained"]


def test_second_run_is_all_cached(first_run, workspace):
    executions = len(store_of(first_run).get_executions())
    run = workspace.run()
    assert run.exit_code == 0
    assert all(" cached" in line for line in run.step_lines().values())
    assert_fits(run.output)
    again = store_of(run).get_executions()
    assert len(again) == executions + len(STEPS)
    cached = [e for e in again if e.last_known_state == metadata_store_pb2.Execution.CACHED]
    assert len(cached) >= len(STEPS)


def test_quiet_prints_the_model_alone(first_run, workspace):
    run = workspace.run("--quiet")
    assert run.exit_code == 0
    (line,) = run.output.splitlines()
    assert pathlib.Path(line).parent == first_run.home / "serving_model"


def test_a_new_price_runs_the_ledger_and_the_reports_only(first_run, workspace):
    run = workspace.run("--set", "cost.price_usd_per_chip_hour=100")
    assert run.exit_code == 0
    ran = {name for name, line in run.step_lines().items() if " cached" not in line}
    assert ran == {"TokenLedger", "CostReport", "ReportPage"}
    (card,) = first_run.home.glob("serving_model/*/README.md")  # the same version, at its new price
    assert usd(run.report()["cost_report"]["actual"]["compute_usd"]) in card.read_text()
    before, after = first_run_cost(first_run), run.report()["cost_report"]["actual"]
    assert after["chip_hours"] == pytest.approx(before["chip_hours"])
    assert after["compute_usd"] == pytest.approx(after["chip_hours"] * 100)


def first_run_cost(run) -> dict:
    return first_run_report(run)["cost_report"]["actual"]


def test_an_estimate_counts_and_trains_nothing(first_run, workspace):
    run = workspace.run("--estimate", "--set", "train.max_steps=7")
    assert run.exit_code == 0, run.output
    steps = run.step_lines()
    assert list(steps)[-1] == "TokenLedger"
    assert run.report()["ledger"]["training"]["steps"] == 7
    for words in ("compute", "Nothing was trained"):
        assert words in run.said
    assert_fits(run.output)
    assert "Tokens by source" in run.report_text()
    over = workspace.run("--estimate", "--set", "budget.max_usd=0.00000001", "--report", "full")
    assert over.exit_code == 0, over.output
    assert "A run would stop here" in over.said
    assert "Tokens by source" in over.output


def test_over_budget_stops_before_training(first_run, workspace):
    executions = len(store_of(first_run).get_executions())
    run = workspace.run("--set", "budget.max_usd=0.00000001")
    assert run.exit_code == 1
    lines = run.step_lines()
    assert lines["TokenLedger"].startswith("✗")
    assert "Trainer" not in lines
    assert run.report()["ledger"]["budget"]["max_usd"] == 1e-8
    assert run.report()["cost_report"] is None
    assert "Tokens by source" in run.report_text()
    for words in ("budget.max_usd", "nothing was trained", "chip-hours"):
        assert words in run.said
    assert_fits(run.output)
    assert "Traceback" not in run.output
    new = store_of(run).get_executions()[executions:]
    assert new[-1].last_known_state == metadata_store_pb2.Execution.FAILED


def test_unblessed_model_is_not_pushed(first_run, workspace):
    versions = set((first_run.home / "serving_model").iterdir())
    run = workspace.run("--set", "evaluate.max_bits_per_byte=0.5")
    assert run.exit_code == 1
    assert "Not pushed" in run.output
    assert "bits_per_byte is" in run.said
    assert "wanted at most 0.5" in run.said
    assert_fits(run.output)
    assert set((first_run.home / "serving_model").iterdir()) == versions


def test_a_model_worse_than_the_last_blessed_one_is_not_pushed(first_run, workspace):
    versions = set((first_run.home / "serving_model").iterdir())
    increase = "evaluate.max_bits_per_byte_increase=0.05"
    run = workspace.run("--set", increase, "--set", "train.max_steps=30", "--json")
    assert run.exit_code == 1
    told = json.loads(run.stdout)
    assert (told["outcome"], told["exit_code"]) == ("not_blessed", 1)
    worse = "above the last blessed model's, wanted at most 0.05 above"
    assert any(worse in failure for failure in told["failures"])
    assert all(" ".join(failure.split()) in run.said for failure in told["failures"])
    steps = [step["step"] for step in told["steps"]]
    assert [step for step in steps if step != "LastBlessedModel"] == list(STEPS)
    assert told["numbers"]["actual"]["compute_usd"] > 0
    assert pathlib.Path(told["paths"]["page"]).exists()
    assert told["paths"]["model"] is None
    assert set((first_run.home / "serving_model").iterdir()) == versions
    evaluation = run.report()["cost_report"]["quality"]["evaluation"]
    blessed = first_run_report(first_run)["cost_report"]["quality"]["evaluation"]
    assert evaluation["total"]["bits_per_byte"] > blessed["total"]["bits_per_byte"] + 0.05


def first_run_report(run) -> dict:
    logs = sorted((run.home / "logs").iterdir())
    return json.loads((logs[0] / "report.json").read_text())


def test_anomalies_stop_the_run(first_run, workspace, tmp_path):
    """A pinned schema that knows one source only: the gate must not let the others pass."""
    schema_uri = pathlib.Path(newest_artifact(first_run, "Schema").uri)
    text = (schema_uri / "schema.pbtxt").read_text()
    narrow = tmp_path / "schema.pbtxt"
    narrow.write_text(text + 'string_domain { name: "known" value: "numpy" }\n', encoding="utf-8")
    lines = narrow.read_text().split("\n")
    source = next(i for i, line in enumerate(lines) if 'name: "source"' in line)
    lines.insert(source + 1, '  domain: "known"')
    narrow.write_text("\n".join(line for line in lines if line.strip() != 'domain: "source"'))
    run = workspace.run("--set", f"validate.schema_path={narrow}")
    assert run.exit_code == 1
    assert run.step_lines()["AnomalyGate"].startswith("✗")
    assert "Curator" not in run.step_lines()
    assert "feature source" in run.said
    assert "validate.schema_path" in run.output


def tokenmill(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_lineage_leads_from_the_pushed_model_to_each_input_file(first_run, workspace):
    result = tokenmill("lineage", str(first_run.home / "serving_model"), "--json")
    assert result.returncode == 0, result.stderr
    traced = json.loads(result.stdout)
    names = {pathlib.Path(file["path"]).name for file in traced["inputs"]}
    assert names == {path.name for path in workspace.corpus.iterdir()}
    assert all(file["size_bytes"] > 0 for file in traced["inputs"])
    report = first_run_report(first_run)
    assert traced["ledger"] == report["ledger"]
    assert traced["cost_report"]["quality"] == report["cost_report"]["quality"]
    assert tomli.loads(traced["config_toml"])["model"]["d_model"] == 96
    for directory in traced["artifacts"].values():
        assert pathlib.Path(directory).is_dir()
    elsewhere = tokenmill("lineage", str(workspace.corpus))
    assert elsewhere.returncode == 1
    assert "no run pushed it" in elsewhere.stderr


def test_register_shows_the_request_with_the_numbers_of_the_run(first_run):
    where = ("--project", "p", "--region", "europe-west4", "--image", "registry.invalid/serving")
    model = str(first_run.home / "serving_model")
    result = tokenmill("register", model, *where, "--artifact-uri", "gs://b/m", "--dry-run")
    assert result.returncode == 0, result.stderr
    request = json.loads(result.stdout)
    labels, ledger = request["model"]["labels"], first_run_report(first_run)["ledger"]
    assert request["model_id"] == labels["run"] == "slice"
    assert int(labels["effective_tokens"]) == round(ledger["training"]["effective_tokens"])
    assert int(labels["train_tokens"]) == ledger["funnel"]["total"]["train"]["tokens"]
    local = tokenmill("register", model, *where, "--artifact-uri", "/here", "--dry-run")
    assert local.returncode == 1
    assert "gs://" in local.stderr


def test_gc_keeps_what_the_newest_run_and_the_served_model_need(first_run, workspace):
    """The runs before left models that were never pushed; the served one is not the newest."""
    models = {int(p.name) for p in (first_run.home / "artifacts/Trainer/model").iterdir()}
    assert len(models) > 1
    result = tokenmill("gc", str(first_run.home), "--keep", "1", "--yes")
    assert result.returncode == 0, result.stderr
    assert "Removed" in result.stdout
    left = {int(p.name) for p in (first_run.home / "artifacts/Trainer/model").iterdir()}
    assert min(models) in left
    assert left <= models  # a run since the oldest kept one may be continued
    gone = [
        a
        for a in store_of(first_run).get_artifacts()
        if a.state == metadata_store_pb2.Artifact.DELETED
    ]
    assert gone
    assert not any(pathlib.Path(a.uri).exists() for a in gone)
    assert "Nothing to remove" in tokenmill("gc", str(first_run.home), "--keep", "1").stdout
    # what the served model was made of is still there: the same run again is all cached
    run = workspace.run()
    assert run.exit_code == 0
    assert all(" cached" in line for line in run.step_lines().values())
    assert_fits(run.output)
