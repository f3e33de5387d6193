"""Which metrics bless or block a model, asked of TFMA's own validator."""

import importlib

import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.evaluators import metrics_validator

from components.evaluate.eval_config import make_eval_config
from components.evaluate.results import read_failures

OVERALL = ()
GOOD = {
    "bits_per_byte": 1.5,
    "perplexity": 40.0,
    "token_accuracy": 0.4,
    "evaluated_tokens": 1000.0,
}
CONFIG = make_eval_config(2.0, 50.0, 0.3)


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
    [("bits_per_byte", 2.0, 2.001), ("perplexity", 50.0, 50.1), ("token_accuracy", 0.3, 0.299)],
)
def test_each_threshold_blocks_on_its_bad_side_only(metric, limit, bad):
    assert failed(CONFIG, **{metric: limit}) == set()
    assert failed(CONFIG, **{metric: bad}) == {metric}
    assert failed(CONFIG, **{metric: float("nan")}) == {metric}


def test_a_source_is_reported_but_never_blocks():
    assert tfma.SlicingSpec(feature_keys=["source"]) in CONFIG.slicing_specs
    assert tfma.SlicingSpec() in CONFIG.slicing_specs
    worst = {"bits_per_byte": 99.0, "perplexity": 1e9, "token_accuracy": 0.0}
    assert failed(CONFIG, slice_key=(("source", "wiki"),), **worst) == set()
    assert failed(CONFIG, **worst) == set(worst)


def test_limits_left_out_do_not_block():
    config = make_eval_config(2.0, None, None)
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
        "EvaluatedTokens",
    }
    assert [m.signature_name for m in CONFIG.model_specs] == ["evaluate"]


def test_a_failure_is_told_as_a_sentence(monkeypatch):
    result = validate(CONFIG, bits_per_byte=2.34567, token_accuracy=float("nan"))
    monkeypatch.setattr(tfma, "load_validation_result", lambda _: result)
    assert sorted(read_failures("anywhere")) == [
        "bits_per_byte is 2.346, wanted at most 2",
        "token_accuracy is not a number, wanted at least 0.3",
    ]
