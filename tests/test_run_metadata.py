"""Where an output directory's metadata is."""

import json

import pytest

from tokenmill.contracts.metadata_server import METADATA_SERVER_NAME
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import has_runs, open_runs, record_metadata_server


def test_a_directory_without_runs_is_one_message_and_stays_empty(tmp_path):
    with pytest.raises(TokenmillError, match="there is no run here"):
        open_runs(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert not has_runs(str(tmp_path))


def test_the_note_names_the_server_and_every_pipeline_that_ran_here(tmp_path):
    for pipeline in ("b", "a", "b"):
        record_metadata_server(str(tmp_path), "mysql://me@host/runs", pipeline)
    assert json.loads((tmp_path / METADATA_SERVER_NAME).read_text()) == {
        "url": "mysql://me@host/runs",
        "pipelines": ["a", "b"],
    }
    record_metadata_server(str(tmp_path), "mysql://me@elsewhere/runs", "c")
    assert json.loads((tmp_path / METADATA_SERVER_NAME).read_text())["pipelines"] == ["c"]
    assert has_runs(str(tmp_path))


def test_a_run_with_its_own_file_again_takes_the_note_away(tmp_path):
    record_metadata_server(str(tmp_path), "mysql://me@host/runs", "a")
    record_metadata_server(str(tmp_path), None, "a")
    assert not has_runs(str(tmp_path))
