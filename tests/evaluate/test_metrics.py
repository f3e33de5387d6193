"""The TFMA metrics on made-up outputs of the `evaluate` signature."""

import itertools
import math

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluate.metrics import (
    HIGH,
    LOW,
    BitsPerByte,
    CalibrationError,
    EvaluatedDocuments,
    EvaluatedTokens,
    Perplexity,
    TokenAccuracy,
)

METRICS = {
    "bits_per_byte": BitsPerByte,
    "perplexity": Perplexity,
    "token_accuracy": TokenAccuracy,
    "evaluated_tokens": EvaluatedTokens,
    "evaluated_documents": EvaluatedDocuments,
}


@st.composite
def documents(draw, min_size=1):
    """(nll_sum, correct_count, token_count, byte_count) of each document."""
    made = []
    for _ in range(draw(st.integers(min_size, 12))):
        tokens = draw(st.integers(1, 5000))
        made.append(
            (
                draw(st.floats(0.01, 12.0)) * tokens,
                float(draw(st.integers(0, tokens))),
                tokens,
                draw(st.integers(1, 20_000)),
            )
        )
    return made


def inputs_of(document):
    names = ("nll_sum", "correct_count", "token_count", "byte_count")
    predictions = {n: np.array([v]) for n, v in zip(names, document, strict=True)}
    return tfma.metrics.StandardMetricInputs(predictions=predictions)


def combiner(name):
    (computation,) = METRICS[name]().computations()
    assert computation.keys[0].name == name
    return computation.combiner


def evaluate(name, groups, suffix=""):
    """Accumulates each group for itself, then merges."""
    combine = combiner(name)
    parts = []
    for group in groups:
        accumulator = combine.create_accumulator()
        for document in group:
            accumulator = combine.add_input(accumulator, inputs_of(document))
        parts.append(accumulator)
    values = combine.extract_output(combine.merge_accumulators(parts))
    return {key.name: value for key, value in values.items()}[name + suffix]


def expected(made):
    nll, correct, tokens, size = np.array(made, np.float64).sum(axis=0)
    return {
        "bits_per_byte": nll / np.log(2) / size,
        "perplexity": np.exp(nll / tokens),
        "token_accuracy": correct / tokens,
        "evaluated_tokens": tokens,
        "evaluated_documents": len(made),
    }


@settings(deadline=None)
@given(documents())
def test_metrics_are_quotients_of_sums(made):
    for name, value in expected(made).items():
        assert evaluate(name, [made]) == pytest.approx(value, rel=1e-9)


@settings(deadline=None)
@given(documents(min_size=2), st.data())
def test_documents_may_be_grouped_in_any_way(made, data):
    shuffled = data.draw(st.permutations(made))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(made)), max_size=4)))
    edges = [0, *cuts, len(made)]
    groups = [shuffled[a:b] for a, b in itertools.pairwise(edges)]
    for name in METRICS:
        assert evaluate(name, groups) == pytest.approx(evaluate(name, [made]), rel=1e-9)


def test_a_long_document_weighs_as_much_as_it_has_tokens():
    short, long = (10 * math.log(2), 10.0, 10, 10), (990 * 3 * math.log(2), 0.0, 990, 990)
    assert evaluate("bits_per_byte", [[short, long]]) == pytest.approx((10 + 2970) / 1000)
    assert evaluate("token_accuracy", [[short, long]]) == pytest.approx(0.01)


def test_a_batch_of_documents_in_one_element_is_summed():
    combine = combiner("evaluated_tokens")
    batch = tfma.metrics.StandardMetricInputs(
        predictions={"token_count": np.array([3, 4]), "byte_count": np.array([1, 1])}
    )
    sums = combine.add_input(combine.create_accumulator(), batch)
    assert list(combine.extract_output(sums).values()) == [7]


@pytest.mark.parametrize("name", ["bits_per_byte", "perplexity", "token_accuracy"])
def test_nothing_evaluated_is_not_a_number(name):
    assert math.isnan(evaluate(name, [[]]))


def test_a_hopeless_model_has_a_finite_perplexity():
    assert math.isfinite(evaluate("perplexity", [[(1e6, 0.0, 1, 1)]]))


def test_counts_do_not_overflow_in_32_bits():
    document = (1.0, 0.0, np.int32(2**31 - 1), np.int32(2**31 - 1))
    assert evaluate("evaluated_tokens", [[document] * 3]) == 3 * (2**31 - 1)


def test_the_interval_covers_the_truth_in_about_95_of_100_corpora():
    """Documents of very unequal length and difficulty, drawn from a known law."""
    truth = 2.0
    assert 0.91 <= coverage(150, lambda random, n: random.gamma(4.0, truth / 4.0, n)) <= 0.98


@pytest.mark.parametrize("documents", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("sizes", [(200, 1000), (100, 3000)])
def test_the_interval_of_a_few_documents_covers_the_truth_too(documents, sizes):
    found = coverage(documents, lambda random, n: random.normal(2.0, 0.3, n), sizes=sizes)
    assert 0.93 <= found <= 0.985


def test_one_document_that_outweighs_the_others_gives_no_interval():
    assert math.isnan(
        evaluate("bits_per_byte", [[(3000.0, 1.0, 2000, 9000), (2.0, 0.0, 1, 4)]], LOW)
    )


def coverage(documents, bits_per_byte_of, corpora=2000, sizes=(20, 3000)):
    """Share of the corpora whose interval of bits per byte holds 2.0, of those that have one."""
    random, combine = np.random.default_rng(5), combiner("bits_per_byte")
    covered = without = 0
    for _ in range(corpora):
        size = random.integers(*sizes, documents)
        nats = bits_per_byte_of(random, documents) * math.log(2) * size
        batch = tfma.metrics.StandardMetricInputs(predictions={"nll_sum": nats, "byte_count": size})
        sums = combine.add_input(combine.create_accumulator(), batch)
        low, high = list(combine.extract_output(sums).values())[1:]
        covered += low <= 2.0 <= high
        without += math.isnan(low)
    assert without < corpora / 3
    return covered / (corpora - without)


@settings(deadline=None)
@given(documents(min_size=2))
def test_the_interval_holds_the_estimate_and_is_finite(made):
    for name in ("bits_per_byte", "perplexity", "token_accuracy"):
        low, value, high = (evaluate(name, [made], s) for s in (LOW, "", HIGH))
        if math.isnan(low):  # documents that do not differ, or one that outweighs all others
            continue
        assert low >= 0
        assert low <= value * (1 + 1e-9) + 1e-9
        assert value <= high * (1 + 1e-9) + 1e-9
        assert math.isfinite(high)


def test_documents_that_do_not_differ_have_no_interval():
    made = [(3.0, 0.0, 2, 5)] * 3
    for name in ("perplexity", "token_accuracy"):
        assert math.isnan(evaluate(name, [made], LOW))
        assert math.isnan(evaluate(name, [made], HIGH))


def test_one_document_has_no_interval():
    assert math.isnan(evaluate("bits_per_byte", [[(3.0, 1.0, 2, 5)]], LOW))


def calibration(groups):
    (computation,) = CalibrationError().computations()
    combine = computation.combiner
    parts = []
    for group in groups:
        accumulator = combine.create_accumulator()
        for confidence, correct, count in group:
            predictions = {
                "calibration_confidence": np.array(confidence, np.float32),
                "calibration_correct": np.array(correct, np.float32),
                "calibration_count": np.array(count, np.float32),
            }
            inputs = tfma.metrics.StandardMetricInputs(predictions=predictions)
            accumulator = combine.add_input(accumulator, inputs)
        parts.append(accumulator)
    found = combine.extract_output(combine.merge_accumulators(parts))
    error, sums = (found[key] for key in computation.keys)
    assert np.shape(sums)[0] == 3
    assert sum(count for group in groups for *_, bins in group for count in bins) == sums[0].sum()
    return error


def test_calibration_error_weighs_bins_by_their_tokens():
    """Ten tokens at 0.9, of which 5 are right, and 30 at 0.3, of which 9 are: 10/40 x 0.4."""
    first = ([9.0, 0.0], [5.0, 0.0], [10.0, 0.0])
    second = ([0.0, 9.0], [0.0, 9.0], [0.0, 30.0])
    assert calibration([[first], [second]]) == pytest.approx(0.1)
    assert calibration([[first, second]]) == pytest.approx(0.1)


def test_errors_of_documents_in_one_bin_cancel_only_over_the_whole():
    over, under = ([9.0], [8.0], [10.0]), ([9.0], [10.0], [10.0])
    assert calibration([[over]]) == pytest.approx(0.1)
    assert calibration([[over, under]]) == pytest.approx(0.0)


def test_calibration_of_nothing_is_not_a_number():
    assert math.isnan(calibration([[]]))
