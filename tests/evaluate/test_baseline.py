"""Whether a model is better than none."""

import pytest

from components.evaluate.baseline import BaselineConfig, shortcomings
from tokenmill.contracts.training import Losses

BOTH = BaselineConfig(beat_baseline=True, require_improvement=True, continues=False)


def losses(**measures):
    return Losses(nll_sum=1.0, loss_tokens=1.0, **{"loss": 1.0, **measures})


def interval(name, low, value, high):
    return {f"{name}_ci95_low": low, name: value, f"{name}_ci95_high": high}


CAUSAL = (losses(bits_per_byte=7.5), {"unigram_bits_per_byte": 2.9})
MASKED = (losses(perplexity=300.0), {"unigram_perplexity": 90.0})
CLASSES = (losses(loss=0.7, accuracy=0.5), {"majority_accuracy": 0.6, "prior_log_loss": 0.65})


@pytest.mark.parametrize(
    ("task", "known", "total", "missed"),
    [
        ("causal-lm", CAUSAL, interval("bits_per_byte", 2.0, 2.1, 2.2), []),
        ("causal-lm", CAUSAL, interval("bits_per_byte", 2.7, 2.8, 2.95), ["beat_baseline"]),
        ("causal-lm", CAUSAL, {"bits_per_byte": 2.8}, []),  # one document
        ("causal-lm", CAUSAL, {"bits_per_byte": 2.9}, ["beat_baseline"]),
        ("causal-lm", CAUSAL, interval("bits_per_byte", 7.4, 7.45, 7.55),
         ["beat_baseline", "require_improvement"]),
        ("masked-lm", MASKED, interval("masked_perplexity", 70.0, 80.0, 89.0), []),
        ("masked-lm", MASKED, interval("masked_perplexity", 180.0, 190.0, 200.0),
         ["beat_baseline"]),
        ("masked-lm", MASKED, {}, []),  # TFMA's own threshold refuses that
        ("classification", CLASSES,
         interval("accuracy", 0.7, 0.8, 0.9) | interval("log_loss", 0.3, 0.4, 0.5), []),
        ("classification", CLASSES,  # labels drawn at random: above the majority by chance
         interval("accuracy", 0.52, 0.62, 0.71) | interval("log_loss", 0.6, 0.65, 0.69),
         ["beat_baseline"]),
        ("classification", CLASSES,
         interval("accuracy", 0.7, 0.8, 0.9) | interval("log_loss", 0.5, 0.69, 0.9),
         ["require_improvement"]),
    ],
)  # fmt: skip
def test_a_model_has_to_be_better_than_none(task, known, total, missed):
    before, baseline = known
    found = shortcomings(total, task, baseline, before, BOTH)
    assert len(found) == len(missed)
    for sentence, key in zip(found, missed, strict=True):
        assert f"--set evaluate.{key}=false" in sentence
    neither = BOTH.model_copy(update={"beat_baseline": False, "require_improvement": False})
    assert shortcomings(total, task, baseline, before, neither) == []


def test_a_value_that_is_better_by_chance_is_not_called_no_better():
    before, baseline = CAUSAL
    for low, value, high, words in (
        (2.7, 2.8, 2.95, ": not certainly better than the frequencies"),
        (2.8, 2.92, 3.0, ": no better than the frequencies"),
    ):
        total = interval("bits_per_byte", low, value, high)
        (sentence,) = shortcomings(total, "causal-lm", baseline, before, BOTH)
        assert words in sentence


def test_a_training_that_goes_on_from_another_may_gain_little():
    total = interval("bits_per_byte", 2.0, 2.1, 2.2)
    before, baseline = losses(bits_per_byte=2.12), {"unigram_bits_per_byte": 2.9}
    went_on = BOTH.model_copy(update={"continues": True})
    assert len(shortcomings(total, "causal-lm", baseline, before, BOTH)) == 1
    assert shortcomings(total, "causal-lm", baseline, before, went_on) == []
    worse = losses(bits_per_byte=2.1)
    assert len(shortcomings(total, "causal-lm", baseline, worse, went_on)) == 1


def test_nothing_held_out_is_no_baseline():
    total = {"bits_per_byte": 3.0}
    assert shortcomings(total, "causal-lm", {}, losses(bits_per_byte=7.0), BOTH) == []
