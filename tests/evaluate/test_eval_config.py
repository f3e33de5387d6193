"""Which metrics bless or block a model, asked of TFMA's own validator."""

import importlib

import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.proto import config_pb2

from components.evaluate.config import EvaluateConfig
from components.evaluate.eval_config import SLICED_BY, make_eval_config
from tokenmill.contracts.evaluation import read_failures

OVERALL = ()
GOOD = {
    "bits_per_byte": 1.5,
    "perplexity": 40.0,
    "token_accuracy": 0.4,
    "token_accuracy_top5": 0.6,
    "calibration_error": 0.02,
    "evaluated_tokens": 1000.0,
    "evaluated_documents": 10.0,
}
CONFIG = make_eval_config(
    EvaluateConfig(
        max_bits_per_byte=2.0,
        max_perplexity=50.0,
        min_token_accuracy=0.3,
        max_calibration_error=0.1,
    )
)


def validate(config, slice_key=OVERALL, **change):
    metrics = {tfma.metrics.MetricKey(name=k): v for k, v in {**GOOD, **change}.items()}
    return metrics_validator.validate_metrics((slice_key, metrics), config)


def failed(config, slice_key=OVERALL, **change):
    result = validate(config, slice_key, **change)
    return {
        failure.metric_key.name
        for by_slice in result.metric_validations_per_slice
        for failure in by_slice.failures
    }


def test_a_good_model_is_blessed():
    assert validate(CONFIG).validation_ok
    assert not failed(CONFIG)


@pytest.mark.parametrize(
    ("metric", "limit", "bad"),
    [
        ("bits_per_byte", 2.0, 2.001),
        ("perplexity", 50.0, 50.1),
        ("token_accuracy", 0.3, 0.299),
        ("calibration_error", 0.1, 0.101),
    ],
)
def test_each_threshold_blocks_on_its_bad_side_only(metric, limit, bad):
    assert failed(CONFIG, **{metric: limit}) == set()
    assert failed(CONFIG, **{metric: bad}) == {metric}
    assert failed(CONFIG, **{metric: float("nan")}) == {metric}


def test_a_source_is_reported_but_never_blocks():
    for feature in SLICED_BY:
        assert config_pb2.SlicingSpec(feature_keys=[feature]) in CONFIG.slicing_specs
    assert config_pb2.SlicingSpec() in CONFIG.slicing_specs
    worst = {
        "bits_per_byte": 99.0,
        "perplexity": 1e9,
        "token_accuracy": 0.0,
        "calibration_error": 0.9,
    }
    assert failed(CONFIG, slice_key=(("source", "wiki"),), **worst) == set()
    assert failed(CONFIG, **worst) == set(worst)


def test_limits_left_out_do_not_block():
    config = make_eval_config(EvaluateConfig(max_bits_per_byte=2.0))
    assert failed(config, perplexity=1e9, token_accuracy=0.0) == set()
    assert failed(config, bits_per_byte=2.1) == {"bits_per_byte"}


def test_every_metric_named_exists_and_the_raw_text_signature_is_asked():
    (spec,) = CONFIG.metrics_specs
    for metric in spec.metrics:
        metric_class = getattr(importlib.import_module(metric.module), metric.class_name)
        assert issubclass(metric_class, tfma.metrics.Metric)
    assert {m.class_name for m in spec.metrics} == {
        "BitsPerByte",
        "Perplexity",
        "TokenAccuracy",
        "TokenAccuracyTop5",
        "CalibrationError",
        "EvaluatedTokens",
        "EvaluatedDocuments",
    }
    assert [m.signature_name for m in CONFIG.model_specs] == ["evaluate"]


def test_a_limit_for_sources_blocks_in_any_source_and_not_over_all():
    config = make_eval_config(EvaluateConfig(max_bits_per_byte=9, max_source_bits_per_byte=2))
    wiki = (("source", "wiki"),)
    assert failed(config, slice_key=wiki, bits_per_byte=2.5) == {"bits_per_byte"}
    assert failed(config, slice_key=wiki, bits_per_byte=1.9) == set()
    assert failed(config, bits_per_byte=2.5) == set()
    assert failed(config, slice_key=(("length", "1-4 kB"),), bits_per_byte=2.5) == set()


def validation_against_baseline(increase, by):
    config = make_eval_config(
        EvaluateConfig(max_bits_per_byte=9, max_bits_per_byte_increase=increase)
    )
    limits = tfma.metrics.metric_thresholds_from_metrics_specs(
        config.metrics_specs, eval_config=config
    )
    metrics = {key: by if key.is_diff else 2.0 for key in limits}
    assert sorted(key.is_diff for key in metrics) == [False, True]
    return metrics_validator.validate_metrics((OVERALL, metrics), config)


@pytest.mark.parametrize(
    ("by", "blessed"), [(-0.5, True), (0.0, True), (0.04, True), (0.06, False)]
)
def test_a_model_worse_than_the_last_blessed_one_is_blocked(by, blessed):
    assert validation_against_baseline(0.05, by).validation_ok is blessed


def test_a_failure_is_told_with_slice_and_distance(monkeypatch):
    def sentences(result):
        monkeypatch.setattr(tfma, "load_validation_result", lambda _: result)
        return sorted(read_failures("anywhere"))

    assert sentences(validate(CONFIG, bits_per_byte=2.34567, token_accuracy=float("nan"))) == [
        "bits_per_byte is 2.346, wanted at most 2, missed by 0.346",
        "token_accuracy is not a number, wanted at least 0.3",
    ]
    by_source = make_eval_config(EvaluateConfig(max_bits_per_byte=9, max_source_bits_per_byte=2))
    assert sentences(validate(by_source, (("source", "wiki"),), bits_per_byte=3.0)) == [
        "bits_per_byte where source is wiki is 3, wanted at most 2, missed by 1"
    ]
    assert sentences(validation_against_baseline(0.05, 0.06)) == [
        "bits_per_byte is 0.06 above the last blessed model's, wanted at most 0.05 above"
    ]


def test_a_masked_model_is_held_to_its_hidden_tokens_and_never_to_bits_per_byte():
    settings = EvaluateConfig(max_bits_per_byte=0.001, max_perplexity=50.0, min_token_accuracy=0.3)
    config = make_eval_config(settings, "masked-lm")
    good = {"masked_perplexity": 40.0, "masked_token_accuracy": 0.4}
    assert failed(config, **good) == set()
    assert failed(config, **{**good, "masked_perplexity": 51.0}) == {"masked_perplexity"}
    assert failed(config, **{**good, "masked_token_accuracy": 0.2}) == {"masked_token_accuracy"}


def test_without_limits_a_masked_model_is_blessed_if_anything_was_evaluated():
    config = make_eval_config(EvaluateConfig(max_bits_per_byte=8.0), "masked-lm")
    hopeless = {"masked_perplexity": 1e9, "masked_token_accuracy": 0.0}
    assert validate(config, **hopeless).validation_ok
    assert failed(config, **hopeless, evaluated_tokens=0.0) == {"evaluated_tokens"}


GOOD_CLASSES = {"accuracy": 0.9, "macro_f1": 0.85, "auc": 0.95, "log_loss": 0.3}


def test_a_classifier_is_held_to_accuracy_and_f1_and_never_to_bits_per_byte():
    config = make_eval_config(
        EvaluateConfig(
            max_bits_per_byte=0.001, min_accuracy=0.8, min_macro_f1=0.7,
            max_calibration_error=0.1), "classification"
    )  # fmt: skip
    assert failed(config, **GOOD_CLASSES) == set()
    for name, bad in (("accuracy", 0.79), ("macro_f1", 0.69), ("calibration_error", 0.11)):
        assert failed(config, **{**GOOD_CLASSES, name: bad}) == {name}
        assert failed(config, **{**GOOD_CLASSES, name: float("nan")}) == {name}
    assert failed(config, **GOOD_CLASSES, evaluated_documents=0.0) == {"evaluated_documents"}
    (spec,) = config.metrics_specs
    for metric in spec.metrics:
        metric_class = getattr(importlib.import_module(metric.module), metric.class_name)
        assert issubclass(metric_class, tfma.metrics.Metric)


def test_a_classifier_worse_than_the_last_blessed_one_is_blocked(monkeypatch):
    settings = EvaluateConfig(max_bits_per_byte=9, max_accuracy_decrease=0.02)
    assert settings.compares
    config = make_eval_config(settings, "classification")
    assert [spec.is_baseline for spec in config.model_specs] == [False, True]
    limits = tfma.metrics.metric_thresholds_from_metrics_specs(
        config.metrics_specs, eval_config=config
    )

    def validated(by):
        metrics = {key: by if key.is_diff else 1.0 for key in limits}
        assert any(key.is_diff for key in metrics)
        return metrics_validator.validate_metrics((OVERALL, metrics), config)

    for by, blessed in ((0.1, True), (0.0, True), (-0.019, True), (-0.021, False)):
        assert validated(by).validation_ok is blessed
    monkeypatch.setattr(tfma, "load_validation_result", lambda _: validated(-0.05))
    assert read_failures("anywhere") == [
        "accuracy is 0.05 below the last blessed model's, wanted at most 0.02 below"
    ]
