"""What is told before the first step instead of after all data steps."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from components.ingest.transforms import split_of
from pipeline.loader import load_config
from pipeline.runners.preflight import check_before_start, source_field_remark
from tokenmill.contracts.base import write_document
from tokenmill.contracts.served_model import ServedModel
from tokenmill.errors import TokenmillError

SMALL = ["model.layers=2", "model.d_model=64", "tokenizer.vocab_size=500"]


@pytest.fixture
def base(tmp_path):
    """Directory of a pushed model, as far as its shape and tokenizer are read."""
    extra = tmp_path / "base" / "assets.extra"
    extra.mkdir(parents=True)
    shape = load_config(overrides=SMALL).shape()
    model = ServedModel(model_shape=shape, parameters=1, quantization="float32")
    write_document(str(extra / "model.json"), model)
    (extra / "tokenizer.model").write_bytes(b"theirs")
    return tmp_path / "base"


def checked(tmp_path, *overrides):
    home = f'run.output_dir="{tmp_path / "home"}"'
    check_before_start(load_config(overrides=[home, *overrides]))


def test_a_base_model_of_the_same_shape_passes(base, tmp_path):
    checked(tmp_path, *SMALL, f'model.base_model="{base}"')


def test_shape_and_tokenizer_are_those_of_the_base_model(base):
    config = load_config(overrides=[f'model.base_model="{base}"', "train.task=masked-lm"])
    assert config.shape().layers == 2
    assert config.shape().d_model == 64
    assert config.tokenizer.vocab_size == 500
    assert config.tokenizer.path == f"{base}/assets.extra/tokenizer.model"


def test_what_a_file_says_is_not_overwritten_by_the_base_model(base, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f'[model]\nd_model = 128\nbase_model = "{base}"\n')
    config = load_config(config_path=str(file))
    assert (config.model.d_model, config.model.layers) == (128, 2)


def test_another_shape_is_told_with_every_key_to_set(base, tmp_path):
    others = ["model.layers=4", "model.d_model=128", "tokenizer.vocab_size=600"]
    with pytest.raises(TokenmillError) as caught:
        checked(tmp_path, f'model.base_model="{base}"', *others)
    for option in SMALL:
        assert f"--set {option}" in caught.value.hint


def test_another_tokenizer_is_told_with_the_path_of_the_right_one(base, tmp_path):
    ours = tmp_path / "ours.model"
    ours.write_bytes(b"ours")
    with pytest.raises(TokenmillError, match="tokenizer") as caught:
        checked(tmp_path, *SMALL, f'model.base_model="{base}"', f'tokenizer.path="{ours}"')
    assert f"--set tokenizer.path={base}" in caught.value.hint


def test_no_model_at_all_is_told(tmp_path):
    with pytest.raises(TokenmillError, match=r"model\.base_model"):
        checked(tmp_path, f'model.base_model="{tmp_path}"')


def test_a_tpu_that_is_not_here_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(TokenmillError, match=r"train\.strategy = tpu") as caught:
        checked(tmp_path, "train.strategy=tpu")
    assert "--set train.strategy=default" in caught.value.hint
    monkeypatch.setenv("TPU_NAME", "mine")
    checked(tmp_path, "train.strategy=tpu")


@pytest.mark.parametrize(("devices", "batch", "fits"), [("0,1,2", 16, False), ("0,1", 16, True)])
def test_a_batch_has_to_be_divided_by_the_devices(tmp_path, monkeypatch, devices, batch, fits):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    overrides = ["train.strategy=mirrored", f"train.global_batch_size={batch}"]
    if fits:
        checked(tmp_path, *overrides)
        return
    with pytest.raises(TokenmillError) as caught:
        checked(tmp_path, *overrides)
    assert "--set train.global_batch_size=15" in caught.value.hint


def test_a_disk_that_is_too_small_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(TokenmillError, match="1 MB free") as caught:
        checked(tmp_path)
    assert "--output-dir" in caught.value.hint


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        ("ab" * 10, 2, ""),
        ("ab" * 10, 3, "--set model.classes=2"),
        ("abc" * 10, 2, "--set model.classes=3"),
        ("ab" * 10 + "c", 2, ""),  # curation may drop the one document of c
        ("a" * 10, 2, "two labels or more"),
        (" " * 10, 2, "corpus.label_field"),
    ],
)
def test_classes_are_held_against_the_labels(labels, classes, told, tmp_path):
    rows = [{"text": f"Text {i}.", "class": label.strip()} for i, label in enumerate(labels)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [
        f'corpus.input=["{tmp_path}/a.jsonl"]', "corpus.label_field=class",
        "train.task=classification", f"model.classes={classes}",

    ]  # fmt: skip
    if not told:
        checked(tmp_path, *options)
        return
    with pytest.raises(TokenmillError) as caught:
        checked(tmp_path, *options)
    assert told in caught.value.hint


def test_a_label_of_held_out_documents_alone_is_no_class(tmp_path):
    rows = [{"text": f"Text {i}.", "class": "ab"[i % 2]} for i in range(200)]
    held_out = [row for row in rows if split_of(row["text"].encode(), 0.2) == "eval"]
    for row in held_out[:10]:
        row["class"] = "odd"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checked(
        tmp_path,
        f'corpus.input=["{tmp_path}/a.jsonl"]', "corpus.label_field=class",
        "corpus.eval_fraction=0.2", "train.task=classification", "model.classes=2",
    )  # fmt: skip


def test_the_error_stands_alone_without_warnings_of_libraries(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "--set", f"model.base_model={tmp_path}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("error: model.base_model")
    assert "Warning" not in result.stderr
    assert not result.stdout


def test_a_source_field_that_no_document_has_is_said(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"t {i}", "site": "a"}) + "\n" for i in range(5)))
    given = f'corpus.input=["{path}"]'
    assert source_field_remark(load_config(overrides=[given])) == ""
    assert source_field_remark(load_config(overrides=[given, 'corpus.source_field="site"'])) == ""
    remark = source_field_remark(load_config(overrides=[given, 'corpus.source_field="cite"']))
    assert "corpus.source_field = cite: none of the first 5 documents has this field" in remark
    missing = ["corpus.input=[]", 'corpus.source_field="cite"']
    assert source_field_remark(load_config(overrides=missing)) == ""
