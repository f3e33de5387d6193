"""What is read of TFMA's files: numbers, or nothing."""

import math

import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from tokenmill.contracts import evaluation
from tokenmill.contracts.evaluation import WHOLE, BaselineCheck, read_metrics
from tokenmill.contracts.evaluation import summarize as summarize_evaluation


def result(by_slice):
    """As tfma.load_eval_result gives it."""
    metrics = [
        (key, {"": {"": {name: {"doubleValue": v} for name, v in values.items()}}})
        for key, values in by_slice.items()
    ]
    return tfma.EvalResult(metrics, {}, {}, config_pb2.EvalConfig(), "", "", "")


@pytest.fixture
def loaded(monkeypatch):
    def load(by_slice):
        monkeypatch.setattr(evaluation.tfma, "load_eval_result", lambda uri: result(by_slice))
        monkeypatch.setattr(evaluation, "read_failures", lambda uri: [])
        check = BaselineCheck(baseline={}, failures=["no better than the baseline"])
        monkeypatch.setattr(evaluation, "read_baseline_check", lambda uri: check)

    return load


def test_what_is_no_finite_number_is_absent(loaded):
    loaded({(): {"auc": "NaN", "perplexity": math.nan, "log_loss": "Infinity", "accuracy": 0.5}})
    assert read_metrics("")[WHOLE] == {"accuracy": 0.5}


def test_an_evaluation_of_nothing_has_no_numbers(loaded):
    loaded({})
    summary = summarize_evaluation("")
    assert summary.total == {}
    assert summary.failures == ["no better than the baseline"]


def test_slices_of_fewer_than_30_documents_are_named(loaded):
    documents = {"a": 29.0, "b": 30.0}
    loaded(
        {
            (): {"evaluated_documents": 59.0},
            **{(("source", s),): {"evaluated_documents": n} for s, n in documents.items()},
            (("language", "de"),): {"evaluated_documents": 50.0},
            (("language", "und"),): {"evaluated_documents": 9.0},
        }
    )
    summary = summarize_evaluation("")
    assert summary.few_documents == ["language not known", "source a"]
    assert set(summary.by_language) == {"de", "und"}
    assert summary.by_source["b"] == {"evaluated_documents": 30.0}
