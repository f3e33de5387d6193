"""Sums over logits, beside NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.export.scoring import CALIBRATION_BINS, score_rows

ROWS, LENGTH, VOCABULARY = 3, 7, 11


def independent(logits, targets, used):
    """Token by token, in float64."""
    sums = {name: np.zeros(ROWS) for name in ("nll_sum", "correct_count", "top5_count")}
    bins = {
        f"calibration_{name}": np.zeros((ROWS, CALIBRATION_BINS))
        for name in ("count", "confidence", "correct")
    }
    for row, place in zip(*np.nonzero(used), strict=True):
        scores, target = logits[row, place].astype(np.float64), targets[row, place]
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-scores, kind="stable")
        sums["nll_sum"][row] -= np.log(probabilities[target])
        sums["correct_count"][row] += order[0] == target
        sums["top5_count"][row] += target in order[:5]
        at = min(int(probabilities.max() * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        bins["calibration_count"][row, at] += 1
        bins["calibration_confidence"][row, at] += probabilities.max()
        bins["calibration_correct"][row, at] += order[0] == target
    return {**sums, **bins}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20.0))
def test_sums_equal_an_independent_computation(seed, scale):
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((ROWS, LENGTH, VOCABULARY)) * scale).astype(np.float32)
    targets = random.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
    used = random.integers(0, 2, (ROWS, LENGTH)).astype(np.int32)
    expected = independent(logits, targets, used)
    got = score_rows(tf.constant(logits), tf.constant(targets), tf.constant(used))
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_equal_logits_put_no_more_than_five_in_the_top_five():
    logits = tf.zeros([1, VOCABULARY, VOCABULARY])
    targets = tf.range(VOCABULARY)[None]
    got = score_rows(logits, targets, tf.ones_like(targets))
    assert float(got["top5_count"][0]) == 5
    assert float(got["correct_count"][0]) == 1
    assert float(got["nll_sum"][0]) == pytest.approx(VOCABULARY * np.log(VOCABULARY))
