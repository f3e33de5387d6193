"""`tokenmill schema` where there is nothing to work on; with runs: tests/validate."""

import os
import subprocess
import sys

import ml_metadata as mlmd
import pytest
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2

from pipeline.cli import cli


def schema(*arguments: str):
    return CliRunner().invoke(cli, ["schema", *arguments])


@pytest.mark.parametrize("command", ["freeze", "show", "accept"])
def test_directory_that_is_no_run_is_one_message(command, tmp_path):
    schema_file = tmp_path / "schema.pbtxt"
    schema_file.write_text(VALID)
    more = {"freeze": ["--output", str(tmp_path / "x")], "accept": [str(schema_file)], "show": []}
    result = schema(command, str(tmp_path), *more[command])
    assert result.exit_code == 1
    assert f"{tmp_path}: there is no run here" in result.output
    assert "Traceback" not in result.output


def test_run_that_never_validated(tmp_path):
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "metadata.sqlite")
    config.sqlite.connection_mode = (
        metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    )
    mlmd.MetadataStore(config)
    result = schema("show", str(tmp_path))
    assert result.exit_code == 1
    assert "came as far as data validation" in result.output
    result = schema("freeze", str(tmp_path), "--output", str(tmp_path / "x"))
    assert "inferred a schema" in result.output
    assert not (tmp_path / "x").exists()


def test_freeze_overwrites_nothing(tmp_path):
    (tmp_path / "mine").write_text("precious")
    result = schema("freeze", str(tmp_path), "--output", str(tmp_path / "mine"))
    assert result.exit_code == 1
    assert "exists" in result.output
    assert (tmp_path / "mine").read_text() == "precious"


def test_show_a_file_in_a_process_of_its_own_prints_the_schema_and_no_noise(tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text(VALID)
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "schema", "show", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert result.returncode == 0, result.stderr
    for words in ("byte_count", "at least 1, at most 90", "one of a, b", "0.25 L-infinity"):
        assert words in result.stdout
    assert result.stderr == ""


def _feature(name: str, kind: str, more: str = "") -> str:
    return (
        f'feature {{ name: "{name}" type: {kind} presence {{ min_fraction: 1.0 min_count: 1 }} '
        f"shape {{ dim {{ size: 1 }} }} {more} }}\n"
    )


VALID = (
    _feature("doc_id", "BYTES")
    + _feature("text", "BYTES")
    + _feature(
        "source",
        "BYTES",
        'domain: "source" drift_comparator { infinity_norm { threshold: 0.25 } }',
    )
    + _feature("byte_count", "INT", "int_domain { min: 1 max: 90 }")
    + 'string_domain { name: "source" value: "a" value: "b" }\n'
)
