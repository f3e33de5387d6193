import math

import numpy as np
import pytest

from tokenmill.cost.paired_comparison import (
    LEAST_SEEDS,
    PairedDifference,
    confidence_of_look,
    paired_difference,
    planned_looks,
)

TRUTH = 0.02  # bits per byte
MARGIN = 0.005
STUDIES = 800


class SmallTrainings:
    """Trainings that never ran: losses by seed and document, of the parts that real ones have."""

    def __init__(self, seed, truth, documents=60, seed_noise=0.01, document_noise=0.06):
        self.random = np.random.default_rng(seed)
        self.bytes = self.random.lognormal(7, 1, documents).astype(np.int64) + 50
        self.level = self.random.normal(2.4, 0.3, documents)
        self.effect = truth + self.random.normal(0, document_noise, documents)
        # The documents at hand are a sample: the truth is that of all documents of their kind.
        self.noise, self.interaction = seed_noise, document_noise / 4

    def pair(self):
        n = len(self.bytes)
        common = self.random.normal(0, 0.03)
        own = self.random.normal(0, self.noise) + self.random.normal(0, self.interaction, n)
        reference = (self.level + common) * self.bytes * math.log(2)
        return reference, reference + (self.effect + own) * self.bytes * math.log(2)


def study(seed, truth, looks, confidence, **noise):
    """A study that stops when its answer is clear; returns the interval that it ends with."""
    trainings = SmallTrainings(seed, truth, **noise)
    pairs = []
    for look in looks:
        while len(pairs) < look:
            pairs.append(trainings.pair())
        found = paired_difference(*zip(*pairs, strict=True), trainings.bytes, confidence)
        if found.verdict(MARGIN) != "undecided":
            break
    return found


def missed(truth, looks, confidence, **noise):
    """How often a study that stops when it likes ends with an interval that misses the truth."""
    ends = [study(seed, truth, looks, confidence, **noise) for seed in range(STUDIES)]
    return sum(not found.low <= truth <= found.high for found in ends) / STUDIES


# Where seeds, documents, or neither of them alone decides.
NOISE = [
    {"seed_noise": 0.01, "document_noise": 0.06},
    {"seed_noise": 0.03, "document_noise": 0.001},
    {"seed_noise": 0.001, "document_noise": 0.06},
]


@pytest.mark.parametrize("noise", NOISE, ids=["both", "seeds", "documents"])
@pytest.mark.parametrize("truth", [0.0, TRUTH])
def test_the_interval_covers_although_the_study_peeks(truth, noise):
    looks = planned_looks(8)
    # Of 800 studies 5 % is 40, with a standard deviation of 6.2.
    assert missed(truth, looks, confidence_of_look(len(looks)), **noise) < 0.07


def test_peeking_without_a_correction_would_not_cover():
    """So the test above can fail: ten looks, each at the level of one."""
    noise = {"seed_noise": 0.03, "document_noise": 0.001}
    looks = range(LEAST_SEEDS, 13)
    assert missed(0.0, looks, 0.95, **noise) > 0.08
    assert missed(0.0, looks, confidence_of_look(len(looks)), **noise) < 0.07


def test_a_clear_difference_is_found_at_the_first_look():
    looks = planned_looks(8)
    ends = [
        study(s, 0.15, looks, confidence_of_look(3), seed_noise=0.01, document_noise=0.05)
        for s in range(100)
    ]
    assert sum(found.verdict(MARGIN) == "worse" for found in ends) >= 98
    assert sum(found.seeds == LEAST_SEEDS for found in ends) >= 80


def test_the_difference_is_of_bits_and_bytes_not_of_documents():
    reference = [np.array([100.0, 10.0]), np.array([110.0, 12.0])]
    variant = [np.array([90.0, 11.0]), np.array([104.0, 12.0])]
    found = paired_difference(reference, variant, np.array([90, 10]))
    assert found.mean == pytest.approx((-9 - 6) / 2 / 100 / math.log(2))
    assert (found.seeds, found.documents) == (2, 2)
    assert found.low < found.mean < found.high
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_trainings_that_are_the_same_are_equal():
    same = [np.array([100.0, 10.0]), np.array([110.0, 12.0])]
    found = paired_difference(same, same, np.array([90, 10]))
    assert (found.low, found.high) == (0, 0)
    assert found.verdict(1e-9) == "equal"


def test_without_noise_of_seeds_only_documents_count():
    random = np.random.default_rng(1)
    sizes = random.integers(100, 1000, 400)
    effect = random.normal(0.05, 0.1, 400)
    reference = 2 * sizes * math.log(2)
    variant = reference + effect * sizes * math.log(2)
    found = paired_difference([reference] * 4, [variant] * 4, sizes)
    assert found.seed_error == 0
    # The standard error of a weighted mean, by another road: the bootstrap.
    draws = random.integers(400, size=(4000, 400))
    means = (effect * sizes)[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    assert found.document_error == pytest.approx(means.std(), rel=0.06)


def test_what_is_worse_in_one_source_alone_is_worse():
    """Three sources of which one differs by 0.4: among documents that is noise, by source not."""
    random = np.random.default_rng(4)
    strata = np.repeat([0, 1, 2], 9)
    sizes = random.integers(2000, 9000, 27)
    effect = np.where(strata == 0, 0.4, 0.0) + random.normal(0, 0.02, 27)
    reference = 2 * sizes * math.log(2)
    pair = [reference] * 3, [reference + effect * sizes * math.log(2)] * 3, sizes
    whole, by_source = paired_difference(*pair), paired_difference(*pair, strata=strata)
    assert by_source.mean == whole.mean
    assert by_source.document_error < whole.document_error / 5
    assert by_source.verdict(MARGIN) == "worse"
    # By another road: the bootstrap within each source, whose shares of the bytes are given.
    means = []
    for _ in range(3000):
        total = 0.0
        for number in range(3):
            mine = random.choice(np.flatnonzero(strata == number), 9)
            total += (
                (effect * sizes)[mine].sum() / sizes[mine].sum() * sizes[strata == number].sum()
            )
        means.append(total / sizes.sum())
    # A bootstrap of nine has 8/9 of the variance.
    assert by_source.document_error == pytest.approx(np.std(means) * math.sqrt(9 / 8), rel=0.06)


def test_single_documents_of_sources_share_a_stratum():
    row = [np.array([100.0, 10.0, 30.0, 50.0]), np.array([110.0, 12.0, 33.0, 54.0])]
    other = [np.array([101.0, 12.0, 31.0, 50.0]), np.array([112.0, 12.0, 30.0, 55.0])]
    sizes = np.array([90, 10, 30, 40])
    one = paired_difference(row, other, sizes)
    assert paired_difference(row, other, sizes, strata=np.arange(4)) == one
    joined = paired_difference(row, other, sizes, strata=np.array([0, 1, 1, 1]))
    assert joined == one  # the single one goes to the others
    both = paired_difference(row, other, sizes, strata=np.array([0, 0, 1, 1]))
    assert both.mean == one.mean
    assert both.document_error != one.document_error


def interval(low, high):
    return PairedDifference((low + high) / 2, low, high, 3, 10, 0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.004, 0.004, "equal"), (0.001, 0.004, "equal"), (-0.1, -0.001, "better"),
     (0.001, 0.1, "worse"), (-0.006, 0.001, "undecided"), (-0.1, 0.1, "undecided"),
     (0.0, 0.1, "undecided")],
)  # fmt: skip
def test_verdicts(low, high, verdict):
    assert interval(low, high).verdict(MARGIN) == verdict


def test_looks_are_planned_beforehand():
    assert planned_looks(3) == (3,)
    assert planned_looks(8) == (3, 5, 8)
    assert planned_looks(4) == (3, 4)
    with pytest.raises(ValueError, match="at least 3"):
        planned_looks(2)
    assert confidence_of_look(1) == 0.95
    assert confidence_of_look(5) == pytest.approx(0.99)


@pytest.mark.parametrize(("seeds", "others", "documents"), [(1, 1, 5), (3, 2, 5), (3, 3, 1)])
def test_what_cannot_be_compared_is_an_error(seeds, others, documents):
    row = np.ones(documents)
    with pytest.raises(ValueError, match="expected"):
        paired_difference([row] * seeds, [row] * others, np.ones(documents))
