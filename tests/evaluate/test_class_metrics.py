"""A classifier's metrics on made-up outputs of the `evaluate` signature, against plain counting."""

import itertools
import math

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluate.class_metrics import (
    F1_OF,
    Accuracy,
    Auc,
    CalibrationError,
    EvaluatedDocuments,
    LogLoss,
    MacroF1,
    macro_auc,
    macro_f1,
)
from components.evaluate.metrics import HIGH, LOW
from tokenmill.export.scoring import CALIBRATION_BINS

NAMES = ["bad", "fair", "good"]


def made(documents, classes, seed, ties=False):
    """Labels (-1: none), and probabilities, float32 [documents, classes]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, classes, documents)
    logits = rng.normal(0, 1.5, (documents, classes))
    if ties:
        logits = np.round(logits)
    logits[np.arange(documents), labels] += (labels >= 0) * 1.0
    p = np.exp(logits)
    return labels, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def outputs(labels, p):
    """What the signature says of these documents."""
    used = labels >= 0
    best = p.argmax(-1)
    top = p.max(-1)
    bins = np.minimum((top * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    one_hot = np.eye(CALIBRATION_BINS)[bins] * used[:, None]
    right = (best == labels) & used
    return {
        "nll_sum": -np.log(p[np.arange(len(p)), labels]) * used,
        "correct_count": right.astype(np.float32),
        "example_count": used.astype(np.int32),
        "label_id": np.maximum(labels, 0).astype(np.int32),
        "predicted_id": best.astype(np.int32),
        "probabilities": p,
        "label_names": np.array([[n.encode() for n in NAMES[: p.shape[1]]]] * len(p), object),
        "calibration_count": one_hot,
        "calibration_confidence": one_hot * top[:, None],
        "calibration_correct": one_hot * right[:, None],
    }


def evaluate(metric, labels, p, cuts=()):
    """Adds batches of documents to accumulators of their own, then merges."""
    (computation,) = metric().computations()
    combine, parts = computation.combiner, []
    for a, b in itertools.pairwise([0, *cuts, len(labels)]):
        predictions = outputs(labels[a:b], p[a:b])
        parts.append(
            combine.add_input(
                combine.create_accumulator(),
                tfma.metrics.StandardMetricInputs(predictions=predictions),
            )
        )
    values = combine.extract_output(combine.compact(combine.merge_accumulators(parts)))
    return {key.name: value for key, value in values.items()}


def by_hand(labels, p):
    """Independent: plain Python over pairs and cells."""
    used = labels >= 0
    labels, p = labels[used], p[used].astype(np.float64)
    classes, best = p.shape[1], p.argmax(-1)
    f1 = {}
    for c in range(classes):
        hit = sum((best == c) & (labels == c))
        given_, said = sum(labels == c), sum(best == c)
        if given_ + said:
            precision = hit / said if said else 0.0
            recall = hit / given_ if given_ else 0.0
            f1[c] = 2 * precision * recall / (precision + recall) if hit else 0.0
    areas = []
    for c in range(1 if classes == 2 else 0, classes):
        mine, others = p[labels == c, c], p[labels != c, c]
        if len(mine) and len(others):
            wins = [(a > b) + 0.5 * (a == b) for a in mine for b in others]
            areas.append(np.mean(wins))
    return {
        "accuracy": np.mean(best == labels),
        "log_loss": np.mean(-np.log(p[np.arange(len(p)), labels])),
        "macro_f1": np.mean(list(f1.values())),
        "auc": np.mean(areas) if areas else math.nan,
        "evaluated_documents": len(labels),
        **{f"{F1_OF}{NAMES[c]}": value for c, value in f1.items()},
    }


METRICS = (Accuracy, LogLoss, MacroF1, Auc, EvaluatedDocuments)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(3, 60), st.integers(2, 3), st.integers(0, 10_000), st.booleans(),
    st.lists(st.integers(0, 60), max_size=3),
)  # fmt: skip
def test_they_are_what_plain_counting_gives(documents, classes, seed, ties, cuts):
    labels, p = made(documents, classes, seed, ties)
    labels[0] = 0
    cuts = sorted(min(cut, documents) for cut in cuts)
    expected = by_hand(labels, p)
    found = {}
    for metric in METRICS:
        found |= evaluate(metric, labels, p, cuts)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name


def test_calibration_is_measured_on_the_first_guess():
    labels, p = made(400, 3, 5)
    used = labels >= 0
    best, top = p.argmax(-1)[used], p.max(-1)[used]
    bins = np.minimum((top * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = sum(
        abs(top[bins == b].sum() - (best == labels[used])[bins == b].sum())
        for b in range(CALIBRATION_BINS)
    ) / used.sum()  # fmt: skip
    found = evaluate(CalibrationError, labels, p, [100, 101])
    assert found["calibration_error"] == pytest.approx(error, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_evaluated_is_not_a_number(metric):
    _, p = made(4, 3, 1)
    found = evaluate(metric, np.full(4, -1), p)
    assert all(math.isnan(v) or v == 0 for v in found.values())
    (computation,) = metric().computations()
    empty = computation.combiner
    values = empty.extract_output(empty.merge_accumulators([empty.create_accumulator()]))
    assert all(math.isnan(v) or v == 0 for v in values.values())


@pytest.mark.parametrize(("metric", "name"), [(Accuracy, "accuracy"), (MacroF1, "macro_f1"),
                                              (Auc, "auc")])  # fmt: skip
def test_intervals_hold_what_they_promise(metric, name):
    """Of samples from one population, some 95 % have the population's value in the interval."""
    labels, p = made(20_000, 3, 7)
    truth = by_hand_large(labels, p)[name]
    rng, hits, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        some = rng.integers(0, len(labels), 200)
        found = evaluate(metric, labels[some], p[some])
        hits += found[name + LOW] <= truth <= found[name + HIGH]
    assert 0.90 <= hits / trials <= 0.985


def by_hand_large(labels, p):
    used = labels >= 0
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (labels[used], p[used].argmax(-1)), 1)
    return {
        "accuracy": np.trace(confusion) / confusion.sum(),
        "macro_f1": macro_f1(confusion)[0],
        "auc": macro_auc(labels[used], p[used])[0],
    }


def test_of_two_classes_the_area_is_one():
    labels, p = made(50, 2, 3)
    used = labels >= 0
    area, half_width = macro_auc(labels[used], p[used])
    flipped, other_width = macro_auc(1 - labels[used], p[used][:, ::-1])
    assert area == pytest.approx(flipped, abs=1e-6)
    assert half_width == pytest.approx(other_width, abs=1e-6)
