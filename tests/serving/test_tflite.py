"""The .tflite files against the SavedModel, and the example in a process of its own."""

import pathlib
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from serving.tflite import export_tflite


def test_files_agree_with_the_saved_model_and_the_example_runs(exported, tmp_path):
    files = export_tflite(str(exported.base / "1"), str(tmp_path), check=True)
    assert files["float16"].largest_difference < 0.05
    assert files["float16"].same_next_token > 0.95
    assert files["int8"].same_next_token > 0.8
    assert files["int8"].bytes < files["float16"].bytes
    for kind in ("float16", "int8"):
        assert (tmp_path / f"model-{kind}.tflite").stat().st_size == files[kind].bytes
    example = pathlib.Path(__file__).parents[2] / "serving" / "tflite_example.py"
    result = subprocess.run(
        [sys.executable, "-I", str(example), str(tmp_path), "Returns the"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.startswith("Returns the")
    assert len(result.stdout) > len("Returns the\n")


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_missing_model_is_named(tmp_path, name):
    path = str(tmp_path / name)
    result = CliRunner().invoke(cli, ["export", "tflite", path, str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "no pushed model in" in result.output


def test_an_imported_tokenizer_is_refused_before_anything_is_loaded(tmp_path):
    extra = tmp_path / "1" / "assets.extra"
    extra.mkdir(parents=True)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"no model")
    (extra / "tokenizer.model").write_bytes(b"PK\x03\x04 as a compiled tokenizer begins")
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["export", "tflite", str(tmp_path), str(out)])
    assert result.exit_code == 1
    assert "has an imported tokenizer" in result.output
    assert "tokenmill export hf" in result.output
    assert not out.exists()
