"""An output directory that was moved or copied: TFX's cache answers as before."""

import json
import shutil

import pytest
from tfx.orchestration import metadata
from tfx.orchestration.portable import cache_utils
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.standard_artifacts import Examples

from pipeline.runners import cache_key
from pipeline.runners.cache_key import portable_cache_context
from tokenmill.metadata.relocation import Move


def key(tmp_path, root, directory_id="", said="a", updated=1):
    examples = Examples()
    examples.uri = f"{root}/artifacts/Ingest/examples/1"
    examples.mlmd_artifact.last_update_time_since_epoch = updated
    config = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    with metadata.Metadata(config) as handle:
        context = portable_cache_context(root, directory_id)(
            metadata_handle=handle,
            pipeline_node=pipeline_pb2.PipelineNode(),
            pipeline_info=pipeline_pb2.PipelineInfo(id="demo"),
            input_artifacts={"examples": [examples]},
            parameters={
                "directory": f"{root}/training",
                "said": said,
                "number": 3,
                "ascii": json.dumps({"path": f"{root}/inputs/a", "other": "/elsewhere/a"}),
                "utf8": json.dumps([f"{root}/inputs/a"], ensure_ascii=False),
            },
        )
    assert examples.uri.startswith(root)
    return context.name


def test_the_cache_key_is_the_same_elsewhere(tmp_path):
    assert portable_cache_context("/a", "") is not cache_utils.get_cache_context
    here = key(tmp_path, "/home/me/run")
    assert key(tmp_path, "/srv/run-2", updated=2) == here
    assert key(tmp_path, "/home/me/run", said="b") != here
    # Neighbors on one server do not take from each other.
    assert key(tmp_path, "/home/me/run", directory_id="1") != here


@pytest.mark.parametrize("root", ['/home/ho"me', "/home/größe", "/home/a\\b", "/home/me/run/in it"])
def test_names_that_json_escapes_are_the_same_elsewhere(root, tmp_path):
    assert key(tmp_path, root) == key(tmp_path, "/home/me/run")


def test_what_json_holds_is_json_still():
    move = Move("/home/größe", '/srv/"a"')
    moved = move.text(json.dumps({"path": "/home/größe/x", "not": "/home/größer"}))
    assert json.loads(moved) == {"path": '/srv/"a"/x', "not": "/home/größer"}
    into = Move("/a", "/a/b")
    once = into.text(json.dumps(["/a/x"]))
    assert json.loads(once) == ["/a/b/x"]
    assert into.text(once) == once


def test_other_libraries_compute_anew(tmp_path, monkeypatch):
    here = key(tmp_path, "/home/me/run")
    monkeypatch.setattr(cache_key, "stack_versions", lambda: "tensorflow 2.99.0")
    assert key(tmp_path, "/home/me/run") != here


@pytest.mark.slow
def test_a_copy_of_a_run_is_all_cached(workspace, first_run, tmp_path):
    copy = tmp_path / "of another user"
    shutil.copytree(first_run.home, copy, copy_function=shutil.copy)  # new times, as cp -r
    again = workspace.run("--output-dir", str(copy))
    assert again.exit_code == 0, again.output
    lines = again.step_lines()
    assert all("cached" in line for line in lines.values()), again.output
    assert f"Pushed: {copy}/serving_model/" in again.output
