"""A search over real trainings of a very small model on rows of two sources."""

import dataclasses
import math

import numpy as np
import pytest

from pipeline.loader import load_config
from pipeline.studies.held_out import HeldOutEvaluator, HeldOutSet
from pipeline.studies.mixture_search import (
    MOST_SOURCES,
    group_sources,
    mixture_document,
    search_mixture,
)
from pipeline.studies.proxy_runs import ProxyRuns
from pipeline.studies.value_plan import Plan
from tests.studies.made_value import BETTER
from tokenmill.errors import TokenmillError

HELD_OUT = (
    HeldOutSet("up", tuple(b"ab%d and words" % i for i in range(6))),
    HeldOutSet("down", tuple(b"words and %d" % i for i in range(6))),
)


def test_the_largest_sources_are_weighed_and_the_others_together():
    rows = {f"s{i:02d}": 100 - i for i in range(12)}
    groups = group_sources(rows)
    assert len(groups.names) == MOST_SOURCES + 1
    assert groups.names[0] == "s00"
    assert groups.natural.sum() == pytest.approx(1)
    weights = groups.source_weights(groups.natural)
    assert weights == pytest.approx(
        {name: count / sum(rows.values()) for name, count in rows.items()}
    )
    # Those without a weight of their own keep their proportions.
    moved = groups.source_weights(np.eye(len(groups.names))[-1])
    assert moved["s11"] / moved["s08"] == pytest.approx(89 / 92)
    assert moved["s00"] == 0


def test_a_single_source_has_no_weights():
    with pytest.raises(TokenmillError, match="a single source"):
        group_sources({"a": 10})


@pytest.fixture(scope="module")
def search(corpus, shape, tokenizer_path, tmp_path_factory):
    train = load_config("demo").train.model_copy(update={"global_batch_size": 4})
    plan = Plan(shape, train, 16)
    runs = ProxyRuns(
        str(tmp_path_factory.mktemp("proxies")),
        corpus,
        HeldOutEvaluator(HELD_OUT, tokenizer_path, shape.sequence_length),
    )
    groups = group_sources(dict(corpus.rows_by_source))

    def go(deadline=math.inf):
        seen = []
        found = search_mixture(
            runs, plan, groups, HELD_OUT, 0.3, 5, deadline,
            lambda done, most: seen.append((done, most)),
        )  # fmt: skip
        return found, seen

    return go


def test_a_search_trains_over_random_weights_and_can_be_repeated(search):
    found, seen = search()
    assert len(found.losses) == len(found.weights) == len(seen) == 32
    assert found.weights[0] == pytest.approx(found.groups.natural)
    assert np.isfinite(found.losses).all()
    assert len(set(found.losses.tolist())) > 16
    again, _ = search(deadline=-math.inf)  # what is there takes no time
    assert (again.losses == found.losses).all()
    assert sum(found.proposed_weights().values()) == pytest.approx(1, abs=0.01)


def test_a_search_without_time_says_how_to_go_on(corpus, shape, tokenizer_path, tmp_path):
    plan = Plan(shape, load_config("demo").train.model_copy(update={"global_batch_size": 4}), 16)
    evaluator = HeldOutEvaluator(HELD_OUT, tokenizer_path, shape.sequence_length)
    runs = ProxyRuns(str(tmp_path), corpus, evaluator)
    groups = group_sources(dict(corpus.rows_by_source))
    with pytest.raises(TokenmillError, match="after 0 of at least 8 mixtures of 2 sources"):
        search_mixture(runs, plan, groups, HELD_OUT, 0.3, 5, -math.inf, lambda done, most: None)


def test_the_document_says_what_the_check_found(search):
    found, _ = search()
    for verdict, words in (("better", "is better than"), ("worse", "leave them as they are")):
        document = mixture_document(found, BETTER, verdict)
        assert words in document.note
        assert document.check == BETTER
    nothing = dataclasses.replace(found, proposed=None)
    document = mixture_document(nothing, None, None)
    assert "nothing is proposed" in document.note
    assert document.predicted == pytest.approx(0)
    assert document.proposed == pytest.approx(document.natural, abs=1e-4)
