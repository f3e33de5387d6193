"""Where an output directory's metadata is."""

import json
import shutil

import pytest
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.metadata_server import METADATA_SERVER_NAME
from tokenmill.errors import TokenmillError
from tokenmill.metadata import output_directory
from tokenmill.metadata.output_directory import (
    SQLITE_NAME,
    claim_directory,
    correct_paths,
    has_runs,
    open_runs,
)
from tokenmill.metadata.store import open_store


def test_a_directory_without_runs_is_one_message_and_stays_empty(tmp_path):
    with pytest.raises(TokenmillError, match="there is no run here"):
        open_runs(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert not has_runs(str(tmp_path))


def test_the_note_names_the_server_and_every_pipeline_that_ran_here(tmp_path):
    here = str(tmp_path)
    first = claim_directory(here, "mysql://me@host/runs", "b")
    note = json.loads((tmp_path / METADATA_SERVER_NAME).read_text())
    assert note == {
        "url": "mysql://me@host/runs", "pipelines": ["b"],
        "directory_id": first, "output_dir": here,
    }  # fmt: skip
    other = claim_directory(here, "mysql://me@elsewhere/runs", "c")
    assert json.loads((tmp_path / METADATA_SERVER_NAME).read_text())["pipelines"] == ["c"]
    assert other != first
    old = {"url": "mysql://me@elsewhere/runs", "pipelines": ["c"]}  # of an older release
    (tmp_path / METADATA_SERVER_NAME).write_text(json.dumps(old))
    assert claim_directory(here, "mysql://me@elsewhere/runs", "c") not in (first, other)
    assert has_runs(here)


def test_a_run_with_its_own_file_again_takes_the_note_away(tmp_path):
    claim_directory(str(tmp_path), "mysql://me@host/runs", "a")
    claim_directory(str(tmp_path), None, "a")
    assert not has_runs(str(tmp_path))


def record(store, directory):
    """One execution with one artifact, as TFX records them."""
    kind = metadata_store_pb2.ArtifactType(name="Examples")
    artifact = metadata_store_pb2.Artifact(
        type_id=store.put_artifact_type(kind), uri=f"{directory}/artifacts/Ingest/examples/1"
    )
    artifact.custom_properties["pushed_destination"].string_value = f"{directory}/serving_model/7"
    artifact.custom_properties["elsewhere"].string_value = f"{directory}-2/x"
    store.put_artifacts([artifact])
    execution = metadata_store_pb2.Execution(
        type_id=store.put_execution_type(metadata_store_pb2.ExecutionType(name="Ingest"))
    )
    execution.custom_properties["push_destination"].string_value = json.dumps({"to": directory})
    store.put_executions([execution])


def paths(store, elsewhere):
    (artifact,), (execution,) = store.get_artifacts(), store.get_executions()
    assert artifact.custom_properties["elsewhere"].string_value == elsewhere
    return (
        artifact.uri.removesuffix("/artifacts/Ingest/examples/1"),
        artifact.custom_properties["pushed_destination"].string_value.removesuffix(
            "/serving_model/7"
        ),
        json.loads(execution.custom_properties["push_destination"].string_value)["to"],
    )


@pytest.mark.parametrize("to", ["moved", "first/inside", "fir"])
def test_a_directory_with_its_own_file_can_be_moved_and_is_read_without_a_change(tmp_path, to):
    old, new = tmp_path / "first", tmp_path / to
    old.mkdir()
    record(open_store(str(old / SQLITE_NAME)), str(old))
    aside = tmp_path / "aside"
    old.rename(aside)
    new.parent.mkdir(exist_ok=True)
    aside.rename(new)
    before = (new / SQLITE_NAME).read_bytes()
    elsewhere = f"{old}-2/x"
    assert paths(open_runs(str(new)).store, elsewhere) == (str(new),) * 3
    assert (new / SQLITE_NAME).read_bytes() == before
    for _ in range(2):  # the second time there is nothing to correct
        claim_directory(str(new), None, "a")
        assert paths(open_store(str(new / SQLITE_NAME)), elsewhere) == (str(new),) * 3


def test_a_directory_on_a_server_moves_with_its_runs_and_a_copy_leaves_them(tmp_path, monkeypatch):
    # A SQLite file stands in for the server: what is asked of it is the same.
    server = str(tmp_path / "server.sqlite")
    monkeypatch.setattr(output_directory, "open_store", lambda _: open_store(server))
    url, first, moved, copy = "mysql://me@host/runs", *(tmp_path / n for n in ("a", "b", "c"))
    first.mkdir()
    claimed = claim_directory(str(first), url, "demo")
    record(open_store(server), str(first))
    first.rename(moved)
    elsewhere = f"{first}-2/x"
    assert claim_directory(str(moved), url, "demo") == claimed
    assert paths(open_store(server), elsewhere) == (str(moved),) * 3
    shutil.copytree(moved, copy)
    assert paths(open_runs(str(copy)).store, elsewhere) == (str(copy),) * 3
    with pytest.raises(TokenmillError, match="is a copy"):
        correct_paths(str(copy))
    assert claim_directory(str(copy), url, "demo") != claimed
    assert paths(open_store(server), elsewhere) == (str(moved),) * 3
    assert claim_directory(str(moved), url, "demo") == claimed
