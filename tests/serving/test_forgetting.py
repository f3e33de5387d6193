"""The general text: the base model and the trained one, beside what each says of itself."""

import json
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from components.evaluate.forgetting import forgot_too_much, measure_forgetting
from components.ingest.config import CorpusConfig
from pipeline.loader import ConfigError, load_config
from pipeline.other_texts import pin_general_text
from pipeline.report.quality import describe_forgetting, quality_notes
from tokenmill.contracts.cost_report import EvaluationSummary, Forgetting
from tokenmill.errors import TokenmillError
from tokenmill.export.saved_model import export_model
from tokenmill.export.text_masking import TextMasking
from tokenmill.rows.masking import MaskSettings

TEXTS = ["Returns the sum", "日本語 and the rest", "A layer that adds its inputs " * 30, "x"]


@pytest.fixture
def general(tmp_path):
    """A directory with two kinds of files, and the pinned file of it."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(TEXTS[0])
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS[1:]]
    (tmp_path / "text" / "b.jsonl").write_text("\n".join(lines))
    return pin_general_text(str(tmp_path / "text"), CorpusConfig(), str(tmp_path / "inputs"))


def own_scores(directory):
    """What a model's `score` says of the texts: nats, targets, bytes."""
    outputs = tf.saved_model.load(directory).signatures["score"](text=tf.constant(TEXTS))
    return [float(np.sum(outputs[name])) for name in ("nll_sum", "token_count", "byte_count")]


def test_both_models_are_measured_as_they_measure_themselves(exported, general):
    base, trained = (str(exported.base / str(version)) for version in (1, 2))
    found = measure_forgetting(trained, base, general, None)
    assert found.documents == len(TEXTS)
    assert found.bytes == sum(len(text.encode()) for text in TEXTS)
    for directory, metrics in ((base, found.before), (trained, found.after)):
        nll, targets, size = own_scores(directory)
        assert metrics["evaluated_tokens"] == targets
        assert metrics["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
        assert metrics["perplexity"] == pytest.approx(math.exp(nll / targets), rel=1e-4)
    assert found.before != found.after
    assert measure_forgetting(base, base, general, None).increase == pytest.approx(0, abs=1e-6)


def test_a_masked_model_is_measured_at_its_hidden_tokens(exported, flags, make_encoder, general):
    encoder, model = make_encoder("mlm")
    masking = TextMasking(MaskSettings(0.3, False), flags)
    found = measure_forgetting(model.directory, model.directory, general, masking)
    assert found.after["masked_perplexity"] == pytest.approx(found.before["masked_perplexity"])
    assert found.after["evaluated_tokens"] == found.before["evaluated_tokens"] > 20
    assert "bits_per_byte" not in found.after
    for weight in encoder.trainable_variables:
        weight.assign(weight * 1.5)
    moved = f"{model.directory}-moved"
    export_model(encoder, exported.transform_graph, exported.tokenizer, moved, masking=masking)
    after = measure_forgetting(moved, model.directory, general, masking)
    assert after.before == found.before
    assert abs(after.increase) > 0.01


def test_a_base_model_without_the_head_has_no_number(exported, flags, make_encoder, general):
    _, masked = make_encoder("mlm")
    _, classifier = make_encoder("classifier")
    masking = TextMasking(MaskSettings(0.3, False), flags)
    found = measure_forgetting(masked.directory, classifier.directory, general, masking)
    assert (found.before, found.increase) == ({}, None)
    assert "no number to compare with" in describe_forgetting(found)
    assert forgot_too_much(found, 0.0) == []


def test_a_limit_withholds_the_blessing_and_says_by_how_much():
    found = Forgetting(
        documents=7, bytes=10, before={"bits_per_byte": 2.0}, after={"bits_per_byte": 2.2}
    )
    assert forgot_too_much(found, None) == forgot_too_much(found, 0.11) == []
    (sentence,) = forgot_too_much(found, 0.05)
    assert "bits_per_byte is 2.2 on the general text, 10.0% above the base model's 2" in sentence
    assert "evaluate.max_forgetting = 0.05" in sentence
    assert forgot_too_much(found.model_copy(update={"after": {"bits_per_byte": 1.9}}), 0.0) == []
    summary = EvaluationSummary(
        total={"evaluated_documents": 40.0}, by_source={}, by_length={}, by_language={},
        failures=[], forgetting=found,
    )  # fmt: skip
    assert quality_notes(summary) == [
        "On the general text (7 documents) the base model has 2.000 bits per byte, the trained one "
        "2.200 bits per byte: 10.0% worse."
    ]


def test_the_pinned_file_goes_by_content(general, tmp_path):
    where = str(tmp_path / "inputs")
    assert pin_general_text(str(tmp_path / "text"), CorpusConfig(), where) == general
    content = pathlib.Path(general).read_bytes()
    assert pin_general_text(str(tmp_path / "text"), CorpusConfig(), f"{where}2") != general
    (tmp_path / "text" / "a.txt").write_text("Another text.")
    other = pin_general_text(str(tmp_path / "text"), CorpusConfig(), where)
    assert other != general
    assert pathlib.Path(general).read_bytes() == content
    (tmp_path / "text" / "b.jsonl").write_text("no JSON")
    with pytest.raises(TokenmillError, match=r"evaluate\.forgetting_input: .*b\.jsonl"):
        pin_general_text(str(tmp_path / "text"), CorpusConfig(), where)
    with pytest.raises(TokenmillError, match=r"evaluate\.forgetting_input.*nowhere"):
        pin_general_text(str(tmp_path / "nowhere"), CorpusConfig(), where)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(TokenmillError, match=r"evaluate\.forgetting_input.*empty\.jsonl"):
        pin_general_text(str(tmp_path / "empty.jsonl"), CorpusConfig(), where)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluate.forgetting_input=x"], "random weights has nothing to forget"),
        (["evaluate.max_forgetting=0.1"], "expected evaluate.forgetting_input beside it"),
        (["evaluate.max_forgetting=-1"], "evaluate.max_forgetting = -1"),
        (
            [
                "evaluate.forgetting_input=x", "model.base_model=y", "model.classes=2",
                "train.task=classification",
            ],
            "a classifier's head is new",
        ),
    ],
)  # fmt: skip
def test_where_nothing_can_be_compared_the_key_is_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config("demo", overrides=overrides)
