"""What a model was made of, and what may go: on a true metadata store with directories on disk."""

import datetime
import json
import os
import shutil

import pytest
from click.testing import CliRunner
from complete_model import complete
from ml_metadata.proto import metadata_store_pb2

from pipeline.cli import cli
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.metadata_server import MetadataServer
from tokenmill.contracts.model_origin import ModelOrigin, write_origin
from tokenmill.metadata.garbage_collection import collect_garbage, find_garbage
from tokenmill.metadata.lineage import trace_model
from tokenmill.metadata.output_directory import RunMetadata, open_runs
from tokenmill.metadata.step_records import CONFIG_PROPERTY
from tokenmill.metadata.store import open_store

EXECUTION = metadata_store_pb2.Execution
EVENTS = metadata_store_pb2.Event
STRING = metadata_store_pb2.STRING


class History:
    """Runs as TFX records them: contexts of pipeline, run and node; executions; artifacts."""

    def __init__(self, directory):
        self.directory = directory
        self.store = open_store(str(directory / "metadata.sqlite"))
        self.types = {}
        for name in ("pipeline", "pipeline_run", "node"):
            kind = metadata_store_pb2.ContextType(name=name)
            self.types[name] = self.store.put_context_type(kind)
        for name in ("Examples", "Ledger", "CostReport", "PushedModel"):
            kind = metadata_store_pb2.ArtifactType(name=name)
            self.types[name] = self.store.put_artifact_type(kind)
        kind = metadata_store_pb2.ExecutionType(name="step")
        self.types["step"] = self.store.put_execution_type(kind)
        self.pipeline = self.context("pipeline", "demo")

    def context(self, kind, name):
        found = self.store.get_context_by_type_and_name(kind, name)
        if found is not None:
            return found.id
        context = metadata_store_pb2.Context(type_id=self.types[kind], name=name)
        if kind == "pipeline_run":
            context.custom_properties[CONFIG_PROPERTY].string_value = f"# {name}"
        return self.store.put_contexts([context])[0]

    def step(
        self, run, node, outputs, cached=(), input_base=None, state=EXECUTION.COMPLETE, key=None
    ):
        """outputs: key -> (artifact type, files by name); returns artifact ids."""
        execution = metadata_store_pb2.Execution(type_id=self.types["step"])
        execution.last_known_state = state
        if input_base:
            execution.custom_properties["input_base"].string_value = str(input_base)
        (execution_id,) = self.store.put_executions([execution])
        ids = list(cached)
        for key, (kind, files, properties) in outputs.items():
            uri = self.directory / "artifacts" / node / key / str(execution_id)
            uri.mkdir(parents=True)
            for name, text in files.items():
                (uri / name).write_text(text)
            artifact = metadata_store_pb2.Artifact(type_id=self.types[kind], uri=str(uri))
            artifact.state = metadata_store_pb2.Artifact.LIVE
            for name, value in properties.items():
                artifact.custom_properties[name].string_value = value
            ids += self.store.put_artifacts([artifact])
        key = key or next(iter(outputs), "examples")
        for artifact_id in ids:
            event = EVENTS(artifact_id=artifact_id, execution_id=execution_id, type=EVENTS.OUTPUT)
            event.path.steps.add().key = key
            self.store.put_events([event])
        for context in (
            self.pipeline,
            self.context("pipeline_run", run),
            self.context("node", f"demo.{node}"),
        ):
            association = metadata_store_pb2.Association(
                context_id=context, execution_id=execution_id
            )
            self.store.put_attributions_and_associations([], [association])
        return ids


def documents_of(number):
    ledger = complete(Ledger, {"training": {"steps": number + 1}})
    return ledger, complete(CostReport, {"actual": {"slots": number + 1}})


@pytest.fixture
def history(tmp_path):
    made = History(tmp_path)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    files = [{"path": "/corpus/a.jsonl", "name": "a.jsonl", "size_bytes": 3, "modified": 0.0}]
    (inputs / "manifest").write_text("".join(json.dumps(file) + "\n" for file in files))
    examples = []
    for number, run in enumerate(("run-1", "run-2", "run-3")):
        if run != "run-2":  # run-2 takes run-1's examples from the cache
            part = {"examples": ("Examples", {"data": "x" * 1000}, {})}
            examples = made.step(run, "CorpusExampleGen", part, input_base=inputs)
        else:
            made.step(run, "CorpusExampleGen", {}, cached=examples, input_base=inputs)
        ledger, report = documents_of(number)
        numbers = json.dumps(ledger.to_json())
        made.step(run, "TokenLedger", {"ledger": ("Ledger", {"ledger.json": numbers}, {})})
        numbers = json.dumps(report.to_json())
        made.step(
            run,
            "CostReport",
            {"cost_report": ("CostReport", {"cost_report.json": numbers}, {})},
        )
        target = tmp_path / "serving_model" / str(100 + number)
        target.mkdir(parents=True)
        write_origin(str(target), ModelOrigin(run_id=run, version=str(100 + number)))
        pushed = {"pushed_destination": str(target)}
        made.step(run, "Pusher", {"pushed_model": ("PushedModel", {"m": ""}, pushed)})
    return made


def test_a_model_is_traced_to_its_run_files_and_numbers(history, tmp_path):
    traced = trace_model(str(tmp_path / "serving_model" / "101"))
    assert traced.run_id == "run-2"
    assert traced.config_toml == "# run-2"
    assert [file["path"] for file in traced.inputs] == ["/corpus/a.jsonl"]
    assert (traced.ledger, traced.cost_report) == documents_of(1)
    assert trace_model(str(tmp_path / "serving_model")).run_id == "run-3"


def test_what_a_kept_run_or_a_served_model_uses_stays(history, tmp_path):
    assert find_garbage(RunMetadata(history.store), str(tmp_path), keep=1).directories == []
    for version in ("100", "101"):
        shutil.rmtree(tmp_path / "serving_model" / version)
    garbage = find_garbage(RunMetadata(history.store), str(tmp_path), keep=2)
    # Run 1 is not kept, but its examples are run 2's, too.
    assert {path.split("/artifacts/")[1].split("/")[0] for path in garbage.directories} == {
        "TokenLedger",
        "CostReport",
        "Pusher",
    }
    garbage = find_garbage(RunMetadata(history.store), str(tmp_path), keep=1)
    assert garbage.size_bytes > 1000
    collect_garbage(history.store, garbage)
    assert not any(os.path.exists(path) for path in garbage.directories)
    states = {a.uri: a.state for a in history.store.get_artifacts()}
    deleted = {u for u, state in states.items() if state == metadata_store_pb2.Artifact.DELETED}
    assert deleted == set(garbage.directories)
    assert find_garbage(RunMetadata(history.store), str(tmp_path), keep=1).directories == []
    assert trace_model(str(tmp_path / "serving_model")).run_id == "run-3"


def kinds(garbage):
    """What is to go: the step of an artifact, else the path in the output directory."""
    return {
        path.split("/artifacts/")[1].split("/")[0] if "/artifacts/" in path
        else "/".join(path.split("/")[-2:])
        for path in garbage.directories
    }  # fmt: skip


def test_old_versions_go_only_when_asked_and_never_a_named_or_foreign_one(history, tmp_path):
    base = tmp_path / "serving_model"
    metadata = RunMetadata(history.store)
    (base / "99").mkdir()  # someone else's
    assert find_garbage(metadata, str(tmp_path), keep=1).directories == []
    found = find_garbage(metadata, str(tmp_path), keep=1, keep_versions=2)
    assert kinds(found) == {"serving_model/100", "TokenLedger", "CostReport", "Pusher"}
    (base / "rollout.json").write_text('{"stable": 100, "canary": null}')
    assert find_garbage(metadata, str(tmp_path), keep=1, keep_versions=2).directories == []
    (base / "rollout.json").write_text('{"stable": 101, "canary": 102}')
    (base / "models.config").write_text('version_labels { key: "old" value: 100 }')
    assert find_garbage(metadata, str(tmp_path), keep=1, keep_versions=1).directories == []
    (base / "models.config").unlink()
    # What a rollback after the promotion would serve.
    (base / "rollout.json").write_text('{"stable": 101, "canary": null, "previous": 100}')
    assert find_garbage(metadata, str(tmp_path), keep=1, keep_versions=1).directories == []
    (base / "rollout.json").write_text("{")
    command = ["gc", str(tmp_path), "--keep", "1", "--keep-versions", "1", "--yes"]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert "rollout.json is damaged" in refused.output
    (base / "rollout.json").unlink()
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert sorted(path.name for path in base.iterdir()) == ["102", "99"]
    assert trace_model(str(base / "102")).run_id == "run-3"


def test_a_call_that_was_killed_is_finished_by_the_next(history, tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / "serving_model")
    metadata = RunMetadata(history.store)
    garbage = find_garbage(metadata, str(tmp_path), keep=1)
    calls = []

    def killed(path):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        remove(path)

    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        collect_garbage(history.store, garbage)
    monkeypatch.undo()
    rest = find_garbage(metadata, str(tmp_path), keep=1)
    assert len(rest.directories) == len(garbage.directories) - 1
    assert sum(path.endswith(".removing") for path in rest.directories) == 1
    collect_garbage(history.store, rest)
    assert list(tmp_path.glob("**/*.removing")) == []
    assert find_garbage(metadata, str(tmp_path), keep=1).directories == []


def test_the_record_of_an_artifact_that_is_gone_is_marked(history, tmp_path):
    shutil.rmtree(tmp_path / "serving_model")
    garbage = find_garbage(RunMetadata(history.store), str(tmp_path), keep=1)
    for directory in garbage.directories:  # by hand
        shutil.rmtree(directory)
    done = CliRunner().invoke(cli, ["gc", str(tmp_path), "--keep", "1", "--yes"])
    assert "Nothing to remove" in done.output
    states = {a.id: a.state for a in history.store.get_artifacts()}
    gone = {i for i, state in states.items() if state == metadata_store_pb2.Artifact.DELETED}
    assert gone == set(garbage.artifact_ids)


def test_a_stopped_run_keeps_the_last_good_one(history, tmp_path):
    shutil.rmtree(tmp_path / "serving_model")
    numbers = json.dumps(documents_of(3)[0].to_json())
    history.step("run-4", "TokenLedger", {"ledger": ("Ledger", {"ledger.json": numbers}, {})})
    left = find_garbage(RunMetadata(history.store), str(tmp_path), keep=1).directories
    for node in ("CorpusExampleGen", "TokenLedger", "CostReport", "Pusher"):
        newest = max((tmp_path / "artifacts" / node).glob("*/*"), key=lambda p: int(p.name))
        assert str(newest) not in left
    assert left  # the first two runs'


def test_only_the_runs_of_a_directory_count_on_a_server(history, tmp_path):
    shutil.rmtree(tmp_path / "serving_model")
    server = MetadataServer(
        url="mysql://me@host/runs", pipelines=["demo"], directory_id="mine", output_dir="/a"
    )
    for run in ("run-1", "run-2"):
        context = history.store.get_context_by_type_and_name("pipeline_run", run)
        context.custom_properties["directory_id"].string_value = "mine"
        history.store.put_contexts([context])
    metadata = RunMetadata(history.store, server)
    assert [run.name for run in metadata.runs()] == ["run-1", "run-2"]
    # run-3 is of another directory, and newer: run-2 is this one's newest.
    left = find_garbage(metadata, str(tmp_path), keep=1).directories
    run_2 = history.store.get_context_by_type_and_name("pipeline_run", "run-2")
    executions = [e.id for e in history.store.get_executions_by_context(run_2.id)]
    used = {e.artifact_id for e in history.store.get_events_by_execution_ids(executions)}
    assert used
    assert not {a.uri for a in history.store.get_artifacts_by_id(used)} & set(left)


def test_logs_from_before_the_oldest_kept_run_go(history, tmp_path):
    *_, third = history.store.get_contexts_by_type("pipeline_run")
    begun = datetime.datetime.fromtimestamp(
        third.create_time_since_epoch / 1000, datetime.timezone.utc
    )
    logs = tmp_path / "logs"
    names = {}
    for seconds in (-900, -30, 5):
        time = begun + datetime.timedelta(seconds=seconds)
        names[seconds] = time.strftime("%Y%m%dT%H%M%S.%fZ")
        (logs / names[seconds]).mkdir(parents=True)
    (logs / "mine").mkdir()
    garbage = find_garbage(RunMetadata(history.store), str(tmp_path), keep=1)
    assert garbage.directories == [str(logs / names[-900])]  # -30 is the kept run's own
    assert find_garbage(RunMetadata(history.store), str(tmp_path), keep=3).directories == []


def test_the_command_says_what_it_removes_and_asks(history, tmp_path):
    for version in ("100", "101"):
        shutil.rmtree(tmp_path / "serving_model" / version)
    asked = CliRunner().invoke(cli, ["gc", str(tmp_path), "--keep", "1"], input="n\n")
    assert asked.exit_code != 0
    before = find_garbage(RunMetadata(history.store), str(tmp_path), keep=1)
    assert before.directories
    done = CliRunner().invoke(cli, ["gc", str(tmp_path), "--keep", "1", "--yes"])
    assert done.exit_code == 0, done.output
    assert not find_garbage(open_runs(str(tmp_path)), str(tmp_path), keep=1).directories


def test_a_moved_or_copied_model_and_directory_are_traced_all_the_same(history, tmp_path):
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tmp_path, copy, ignore=lambda *_: ["elsewhere"])
    traced = trace_model(str(copy / "serving_model" / "101"))
    assert traced.run_id == "run-2"
    assert all(path.startswith(f"{copy}/") for path in traced.artifacts.values())
    assert [file["path"] for file in traced.inputs] == ["/corpus/a.jsonl"]
    shutil.move(copy / "serving_model" / "101", tmp_path / "elsewhere" / "model")
    assert trace_model(str(tmp_path / "elsewhere" / "model"), str(tmp_path)).run_id == "run-2"
    shown = CliRunner().invoke(
        cli, ["lineage", str(tmp_path / "elsewhere" / "model"), "--run", str(copy)]
    )
    assert "pushed by run run-2" in shown.output


def test_a_model_that_no_run_pushed_is_one_message(history, tmp_path):
    version = tmp_path / "serving_model" / "102"
    for model, words, *run in (
        (tmp_path / "nowhere", ["there is no such directory"]),
        (tmp_path / "inputs", ["no run pushed it", "older tokenmill"], "--run", str(tmp_path)),
        (version, ["there is no run here"], "--run", str(tmp_path / "inputs")),
    ):
        result = CliRunner().invoke(cli, ["lineage", str(model), *run])
        assert result.exit_code == 1
        assert all(word in result.output for word in words), result.output
    write_origin(str(version), ModelOrigin(run_id="run-9", version="102"))
    result = CliRunner().invoke(cli, ["lineage", str(version)])
    assert result.exit_code == 1
    assert "was pushed by the run run-9, which" in result.output


def test_runs_lists_the_killed_says_what_differed_and_bills_each_training_once(tmp_path):
    made = History(tmp_path)
    spent = {"compute_usd": 2.0, "pipeline_usd": 3.0, "bits_per_byte": 1.5}

    def billed(ids):
        artifacts = made.store.get_artifacts_by_id(ids)
        for artifact in artifacts:
            for name, value in spent.items():
                artifact.custom_properties[name].double_value = value
        made.store.put_artifacts(artifacts)
        return ids

    def configured(run, config):
        context = made.store.get_contexts_by_id([made.context("pipeline_run", run)])[0]
        context.custom_properties[CONFIG_PROPERTY].string_value = config
        made.store.put_contexts([context])

    made.step("run-1", "Trainer", {"examples": ("Examples", {}, {})})
    report = billed(made.step("run-1", "CostReport", {"cost_report": ("CostReport", {}, {})}))
    made.step("run-1", "Pusher", {"pushed_model": ("PushedModel", {}, {})})
    made.step("run-2", "Trainer", {}, cached=[1], state=EXECUTION.CACHED)
    made.step("run-2", "CostReport", {}, cached=report, state=EXECUTION.CACHED, key="cost_report")
    made.step("run-2", "Pusher", {}, cached=[3], state=EXECUTION.CACHED)
    made.step("run-3", "Curator", {}, state=EXECUTION.RUNNING)
    made.step("run-4", "TokenLedger", {}, state=EXECUTION.FAILED)
    made.context("pipeline_run", "run-5")
    for number, rate in enumerate((0.1, 0.1, 0.2, 0.2, 0.2), 1):
        configured(f"run-{number}", f"[train]\nlearning_rate = {rate}\n")
    shown = CliRunner().invoke(cli, ["runs", "--run", str(tmp_path), "--json"])
    runs = json.loads(shown.stdout)
    assert [run["ended"] for run in runs] == [
        "", "", "running, or killed, at Curator", "failed at TokenLedger",
        "ended before its first step",
    ]  # fmt: skip
    assert [run["actual"] for run in runs] == [spent, {"bits_per_byte": 1.5}, {}, {}, {}]
    assert [run["changed"] for run in runs] == [{}, {}, {"train.learning_rate": 0.2}, {}, {}]
    shown = CliRunner().invoke(cli, ["runs", "--run", str(tmp_path)]).stdout
    assert all(f"run-{number}" in shown for number in range(1, 6))
    assert "train.learning_rate=0.2" in shown
    assert "training cached" in shown
