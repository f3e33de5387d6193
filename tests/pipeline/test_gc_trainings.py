"""`tokenmill gc` on the directories of trainings: checkpoints that no kept run refers to."""

import json
import os
import time

import pytest
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2

from pipeline.cli import cli
from tokenmill.metadata.step_records import CONFIG_PROPERTY
from tokenmill.metadata.store import open_store


class Runs:
    """A run directory with its metadata store; runs are recorded as TFX's launcher does."""

    def __init__(self, home):
        self.home = home
        self.store = open_store(str(home / "metadata.sqlite"))
        self.run_type = self._type(metadata_store_pb2.ContextType, "pipeline_run", "context")
        self.execution_type = self._type(metadata_store_pb2.ExecutionType, "Trainer", "execution")
        self.artifact_type = self._type(metadata_store_pb2.ArtifactType, "ModelRun", "artifact")
        self.push_type = self._type(metadata_store_pb2.ExecutionType, "Pusher", "execution")
        node_type = self._type(metadata_store_pb2.ContextType, "node", "context")
        node = metadata_store_pb2.Context(type_id=node_type, name="demo.Pusher")
        (node_id,) = self.store.put_contexts([node])
        (self.node,) = self.store.get_contexts_by_id([node_id])

    def _type(self, cls, name, kind):
        return getattr(self.store, f"put_{kind}_type")(cls(name=name))

    def training(self, name, age_seconds=0.0):
        """A training's directory, last written so long ago."""
        directory = self.home / "training" / name
        saved = directory / "checkpoints" / "step-00000010" / "manifest.json"
        saved.parent.mkdir(parents=True)
        saved.write_text("{}")
        then = time.time() - age_seconds
        for parent, _, names in os.walk(directory):
            for path in (parent, *(os.path.join(parent, n) for n in names)):
                os.utime(path, (then, then))
        return directory

    def add(self, name, training=None, model_run=None, config="", finished=True):
        """Records a run that made (or found in the cache) a ModelRun artifact, if any."""
        context = metadata_store_pb2.Context(type_id=self.run_type, name=name)
        context.custom_properties[CONFIG_PROPERTY].string_value = config
        (context_id,) = self.store.put_contexts([context])
        if finished:
            push = metadata_store_pb2.Execution(type_id=self.push_type)
            push.last_known_state = metadata_store_pb2.Execution.COMPLETE
            recorded = [*self.store.get_contexts_by_id([context_id]), self.node]
            self.store.put_execution(push, [], recorded)
        if training is not None:
            uri = self.home / "artifacts" / "Trainer" / "run" / name
            uri.mkdir(parents=True)
            telemetry = {"training_directory": str(training)}
            (uri / "telemetry.json").write_text(json.dumps(telemetry))
            artifact = metadata_store_pb2.Artifact(type_id=self.artifact_type, uri=str(uri))
            (model_run,) = self.store.put_artifacts([artifact])
        if model_run is not None:
            execution = metadata_store_pb2.Execution(type_id=self.execution_type)
            event = metadata_store_pb2.Event(
                artifact_id=model_run, type=metadata_store_pb2.Event.OUTPUT
            )
            recorded = self.store.get_contexts_by_id([context_id])
            (artifact,) = self.store.get_artifacts_by_id([model_run])
            self.store.put_execution(execution, [(artifact, event)], recorded)
        return model_run

    def left(self):
        return {p.name for p in (self.home / "training").iterdir()}

    def gc(self, keep):
        result = CliRunner().invoke(cli, ["gc", str(self.home), "--keep", str(keep), "--yes"])
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def test_trainings_of_old_runs_go_and_those_of_kept_runs_stay(runs):
    old, kept = runs.training("old", 3600), runs.training("kept", 3600)
    (runs.home / "training" / "options.json").write_text("{}")
    runs.add("run-1", old)
    model_run = runs.add("run-2", kept)
    runs.add("run-3", model_run=model_run)  # all cached
    said = runs.gc(keep=1)
    assert os.path.join("training", "old") in said
    assert runs.left() == {"kept", "options.json"}
    assert "Nothing to remove" in runs.gc(keep=1)


def test_all_stay_while_their_runs_are_kept(runs):
    for i in range(3):
        runs.add(f"run-{i}", runs.training(f"training-{i}", 3600))
    assert "Nothing to remove" in runs.gc(keep=3)
    assert runs.left() == {"training-0", "training-1", "training-2"}


def test_an_unfinished_training_stays_while_a_kept_run_wrote_into_it(runs):
    """No telemetry.json names it yet: it is continued by the next run."""
    runs.training("given-up", 3600)
    runs.add("run-1")
    time.sleep(0.01)
    runs.add("run-2")
    time.sleep(0.01)
    runs.training("interrupted")
    runs.gc(keep=1)
    assert runs.left() == {"interrupted"}


def test_a_training_that_a_kept_run_started_from_stays(runs):
    base = runs.training("base", 3600)
    runs.add("run-1", base)
    longer = runs.training("longer", 3600)
    runs.add("run-2", longer, config=f"[train]\nresume_from = '{base / 'checkpoints'}'\n")
    runs.gc(keep=1)
    assert runs.left() == {"base", "longer"}


def test_a_run_that_was_stopped_is_not_the_newest_good_one(runs):
    good = runs.training("good", 3600)
    runs.add("run-1", runs.training("old", 3600))
    runs.add("run-2", good)
    for i in range(3, 6):  # stopped by its budget: no Trainer, no Pusher
        runs.add(f"run-{i}", finished=False)
    runs.gc(keep=1)
    assert runs.left() == {"good"}


def test_the_training_of_a_directory_that_was_moved_stays(runs):
    kept = runs.training("kept", 3600)
    runs.training("old", 3600)
    runs.add("run-1", kept)
    # telemetry.json has the path of before.
    telemetry = runs.home / "artifacts" / "Trainer" / "run" / "run-1" / "telemetry.json"
    telemetry.write_text(json.dumps({"training_directory": "/before/training/kept"}))
    runs.gc(keep=1)
    assert runs.left() == {"kept"}
