"""Executions that a killed run left behind: marked in its own directory, and there only."""

import pytest
from ml_metadata.proto import metadata_store_pb2

from tokenmill.metadata.store import open_store
from tokenmill.metadata.unfinished import mark_unfinished

STATES = metadata_store_pb2.Execution
DIRECTORY = "a [1] run"


@pytest.fixture
def shared(tmp_path):
    """A store with the same pipeline in two directories: {name: execution id}, and the store."""
    store = open_store(str(tmp_path / "metadata.sqlite"))
    kind = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
    step = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Step"))
    (context,) = store.put_contexts([metadata_store_pb2.Context(type_id=kind, name="demo")])
    ids = {}
    for name, directory, state in (
        ("done", DIRECTORY, STATES.COMPLETE),
        ("killed", DIRECTORY, STATES.RUNNING),
        ("elsewhere", "other", STATES.RUNNING),
    ):
        execution = metadata_store_pb2.Execution(type_id=step, last_known_state=state)
        (ids[name],) = store.put_executions([execution])
        association = metadata_store_pb2.Association(context_id=context, execution_id=ids[name])
        store.put_attributions_and_associations([], [association])
        place = tmp_path / directory / "Step" / ".system" / "executor_execution" / str(ids[name])
        place.mkdir(parents=True)
    return store, ids, tmp_path


def states(store, ids):
    found = {e.id: STATES.State.Name(e.last_known_state) for e in store.get_executions()}
    return {name: found[id_] for name, id_ in ids.items()}


def test_what_a_killed_run_left_is_failed_and_nothing_else(shared):
    store, ids, root = shared
    for expected in ([ids["killed"]], []):
        assert mark_unfinished(store, "demo", str(root / DIRECTORY), STATES.FAILED) == expected
        assert states(store, ids) == {
            "done": "COMPLETE",
            "killed": "FAILED",
            "elsewhere": "RUNNING",
        }


def test_a_pipeline_that_never_ran_has_nothing(shared):
    store, _, root = shared
    assert mark_unfinished(store, "new", str(root / DIRECTORY), STATES.FAILED) == []
