"""Runs on an engine, from the records that their steps left: the queries of ML Metadata."""

import json

import pytest

from tokenmill.contracts.step_execution import (
    ArtifactVersion,
    StepExecution,
    read_step_executions,
    write_step_execution,
)
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.run_history import compare_runs, models_trained_on, newest_ledger

LEDGER = {"effective_tokens": 1e6, "compute_usd": 2.5, "text": "no number"}


def leave(root, run, step, started, inputs=(), outputs=None, state="complete", properties=None):
    """Leaves a record; artifacts are at RUN/STEP/KEY unless they are named whole."""
    made = {key: f"{root}/{run}/{step}/{key}" for key in outputs or {}}
    write_step_execution(
        str(root),
        StepExecution(
            pipeline="demo",
            run_id=run,
            step=step,
            state=state,
            started=started,
            ended=None if state == "running" else started + 1,
            inputs={key: [f"{root}/{uri}"] for key, uri in inputs},
            outputs={
                key: [ArtifactVersion(uri=made[key], properties=values)]
                for key, values in (outputs or {}).items()
            },
            properties=properties or {},
        ),
    )


@pytest.fixture
def root(tmp_path):
    """A run; then one with another price, whose packer and trainer came from the engine's cache."""
    job = json.dumps({"seed": 3})
    leave(tmp_path, "a", "Packer", 1.0, outputs={"packed_rows": {}})
    rows = [("packed_rows", "a/Packer/packed_rows")]
    leave(tmp_path, "a", "TokenLedger", 2.0, rows, {"ledger": LEDGER})
    leave(tmp_path, "a", "Trainer", 3.0, rows, {"model": {}, "model_run": {}},
          properties={"job": job, "seed": 7.0})  # fmt: skip
    pushed = {"pushed_model": {"pushed_destination": "/serving/1", "pushed": 1.0}}
    leave(tmp_path, "a", "Pusher", 5.0, [("model", "a/Trainer/model")], pushed)
    config = {"config_toml": "[budget]\nmax_usd = 1.0\n"}
    leave(tmp_path, "a", "ReportPage", 6.0, outputs={"page": {}}, properties=config)
    leave(tmp_path, "b", "TokenLedger", 12.0, rows, {"ledger": {**LEDGER, "compute_usd": 9.0}})
    leave(tmp_path, "b", "Pusher", 13.0, [("model", "a/Trainer/model")], state="failed")
    leave(tmp_path, "b", "CostReport", 13.5, outputs={"cost_report": {"bits_per_byte": 2.0}})
    return tmp_path


def test_runs_are_compared_and_their_ends_told(root):
    a, b = compare_runs(open_runs(str(root)))
    assert (a.run, a.ended, a.trained) == ("a", "", True)
    assert a.estimated == {"effective_tokens": 1e6, "compute_usd": 2.5}
    assert (b.run, b.ended, b.trained) == ("b", "failed at Pusher", False)
    assert b.estimated["compute_usd"] == 9.0
    assert b.actual == {"bits_per_byte": 2.0}


def test_a_cached_step_belongs_to_both_runs_and_models_are_found_by_rows(root):
    metadata = open_runs(str(root))
    newest = newest_ledger(metadata, str(root))
    assert newest.run_id == "b"
    assert newest.packed_rows.uri == f"{root}/a/Packer/packed_rows"
    (model,) = models_trained_on(metadata.store, newest.packed_rows)
    assert model.run_ids == ("a", "b")
    assert model.seed == 7  # the run's parameter, not the configuration's 3
    assert model.pushed_to == ("/serving/1",)


def test_one_that_was_killed_is_running_or_killed(root):
    leave(root, "c", "Packer", 20.0, state="running")
    assert compare_runs(open_runs(str(root)))[-1].ended == "running, or killed, at Packer"


def test_a_repeated_step_replaces_its_record(root):
    leave(root, "b", "Pusher", 14.0, state="complete")
    pushers = [e for e in read_step_executions(str(root)) if (e.run_id, e.step) == ("b", "Pusher")]
    assert [each.state for each in pushers] == ["complete"]
    assert compare_runs(open_runs(str(root)))[-1].ended == ""


def test_where_nothing_ran_is_said_with_what_would_do(tmp_path):
    with pytest.raises(TokenmillError, match=r"no metadata\.sqlite, .* or executions") as caught:
        open_runs(str(tmp_path))
    assert "an engine's pipeline root" in caught.value.hint
