"""The command line as a user meets it: in a process of its own."""

import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.loader import preset_names


def tokenmill(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_help_is_quick_and_needs_no_tensorflow():
    code = (
        "import sys, pipeline.cli\n"
        "try: pipeline.cli.cli(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'tfx', 'apache_beam', 'numpy'} & set(sys.modules)\n"
    )
    best = float("inf")
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = os.times()  # seconds of its own: others' work does not count
        used = after.children_user + after.children_system
        best = min(best, used - before.children_user - before.children_system)
    assert best < 1.0


def assert_clean_failure(result: subprocess.CompletedProcess, *words: str) -> None:
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "Traceback" not in output
    for word in words:
        assert word in output


def test_wrong_key_is_one_message(tmp_path):
    result = tokenmill("run", "--set", "train.epoch=1", "--output-dir", str(tmp_path / "out"))
    assert_clean_failure(result, "unknown key train.epoch", "did you mean epochs?")
    assert not (tmp_path / "out").exists()


def test_unknown_chip_suggests_one(tmp_path):
    result = tokenmill("run", "--set", "cost.chip=a101", "--output-dir", str(tmp_path / "out"))
    assert_clean_failure(result, "cost.chip", "a100-sxm4-80gb")
    assert not (tmp_path / "out").exists()


def test_an_output_directory_that_tfx_takes_for_a_pattern_is_refused_first(tmp_path):
    for name in ("a[b]", "what?", "star*"):
        result = tokenmill("run", "--output-dir", str(tmp_path / name))
        assert_clean_failure(result, "run.output_dir", name, "--set run.output_dir=")
    assert not list(tmp_path.iterdir())


def test_classification_without_a_label_field_is_refused_first(tmp_path):
    task = ("--set", "train.task=classification", "--set", "model.classes=2")
    result = tokenmill("run", *task, "--output-dir", str(tmp_path / "out"))
    assert_clean_failure(result, "classification", "corpus.label_field")
    assert not (tmp_path / "out").exists()


def test_missing_input_is_named(tmp_path):
    missing = tmp_path / "nowhere"
    result = tokenmill("run", "--input", str(missing), "--output-dir", str(tmp_path / "out"))
    assert_clean_failure(result, str(missing), "no such file")


def test_debug_shows_the_trace(tmp_path):
    missing, out = str(tmp_path / "nowhere"), str(tmp_path / "out")
    result = tokenmill("run", "--debug", "--input", missing, "--output-dir", out)
    assert "Traceback" in result.stdout + result.stderr


def test_output_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    result = tokenmill("run", "--output-dir", str(tmp_path / "file" / "out"))
    assert_clean_failure(result, "cannot write to", "--output-dir")


def test_generate_without_a_model(tmp_path):
    result = tokenmill("generate", "x", "--model", str(tmp_path))
    assert_clean_failure(result, "no pushed model", "tokenmill run")


def test_generate_with_a_damaged_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"not a model")
    result = tokenmill("generate", "x", "--model", str(tmp_path))
    assert_clean_failure(result, "cannot use the model", str(tmp_path))


@pytest.mark.parametrize("arguments", [["run", "stray"], ["generate"], ["fly"]])
def test_usage_errors_exit_with_2(arguments):
    assert tokenmill(*arguments).returncode == 2


def test_help_names_every_preset():
    shown = CliRunner().invoke(cli, ["run", "--help"]).output
    whole = re.sub(r"-\n +", "-", shown)  # a line may end at a hyphen
    assert [name for name in preset_names() if name not in whole] == []
