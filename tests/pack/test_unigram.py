import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenmill.rows.unigram import unigram_baseline


def unigram_bits_per_byte(train, held_out, size):
    return unigram_baseline(train, held_out, size, "causal-lm")["unigram_bits_per_byte"]


counts = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=40)


def direct(train, held_out, size):
    """Token by token, with the textbook's Laplace estimate."""
    bits = 0.0
    for seen, count in zip(train, held_out, strict=True):
        bits -= count * math.log2((seen + 1) / (sum(train) + len(train)))
    return bits / size


@settings(deadline=None)
@given(counts, st.integers(1, 10_000))
def test_it_equals_the_direct_computation(pairs, size):
    assume(any(count for _, count in pairs))
    train, held_out = (list(column) for column in zip(*pairs, strict=True))
    value = unigram_bits_per_byte(np.array(train), np.array(held_out), size)
    assert value == pytest.approx(direct(train, held_out, size), rel=1e-9, abs=1e-12)
    assert math.isfinite(value)


def test_a_token_unseen_in_training_costs_finite_bits():
    value = unigram_bits_per_byte(np.array([7, 0]), np.array([0, 1]), 1)
    assert value == pytest.approx(math.log2(9))


def test_without_training_every_token_costs_the_same():
    assert unigram_bits_per_byte(np.zeros(256), np.ones(256), 256) == pytest.approx(8.0)


def test_better_knowledge_of_the_frequencies_costs_fewer_bits():
    held_out = np.array([90, 5, 5])
    knows = unigram_bits_per_byte(np.array([900, 50, 50]), held_out, 100)
    guesses = unigram_bits_per_byte(np.array([50, 50, 900]), held_out, 100)
    assert knows < guesses


@pytest.mark.parametrize("task", ["causal-lm", "masked-lm", "classification"])
def test_no_held_out_text_has_no_baseline(task):
    assert unigram_baseline(np.array([1, 2]), np.array([0, 0]), 0, task) == {}


def test_a_masked_model_is_measured_per_hidden_token():
    uniform = unigram_baseline(np.zeros(50), np.ones(50), 1, "masked-lm")
    assert uniform == {"unigram_perplexity": pytest.approx(50.0)}
    skewed = unigram_baseline(np.array([98, 0]), np.array([9, 1]), 1, "masked-lm")
    expected = (100 / 99) ** 0.9 * 100**0.1
    assert skewed["unigram_perplexity"] == pytest.approx(expected)
