"""ladder.json of made outcomes: what it says of them, on the screen, on the page and in a plan."""

import io
import json
import math
from html.parser import HTMLParser

import pytest

from pipeline.report.console import RunConsole
from pipeline.report.ladder import law_lines, print_ladder
from pipeline.report.ladder_loss import ladder_rows
from pipeline.report.page.ladder import render_ladder
from tests.studies.made_ladder import LAW, UNIQUE_TOKENS, loss_of, made_ladder
from tokenmill.contracts.ladder import Ladder, LadderPrediction, read_ladder, write_ladder
from tokenmill.cost.ladder_fit import expected_by_ladder, fit_of
from tokenmill.cost.scaling import SPARSE_NOTE, expected_loss
from tokenmill.errors import TokenmillError


@pytest.fixture(scope="module")
def ladder():
    return made_ladder()


def shown(ladder):
    out = io.StringIO()
    print_ladder(RunConsole(out), ladder, "/runs/ladder.json", "/runs/ladder.html")
    return out.getvalue()


def test_the_prediction_is_of_the_law(ladder):
    found = ladder.prediction
    truth = loss_of(found.params, found.effective_tokens)
    assert found.bits_per_byte.value == pytest.approx(truth, rel=0.02)
    assert found.bits_per_byte.low < truth < found.bits_per_byte.high
    assert found.epochs == pytest.approx(1_050_000 / UNIQUE_TOKENS)
    for name in ("alpha", "beta", "e"):
        constant = getattr(ladder.fit.constants, name)
        assert constant.low - 0.1 <= getattr(LAW, name) <= constant.high + 0.1
    assert not ladder.problems
    assert ladder.backtests


def test_every_small_training_is_there_with_its_place_in_the_fit(ladder):
    used = [point for point in ladder.points if not point.left_out]
    checks = [point for point in ladder.points if point.left_out]
    assert {point.purpose for point in used} == {"ladder", "other seed", "larger batch"}
    assert {point.purpose for point in checks} == {
        "half the learning rate",
        "twice the learning rate",
    }
    for point in used:
        assert point.fitted_bits_per_byte == pytest.approx(point.bits_per_byte, rel=0.03)
        assert point.bits_per_byte_by_set == {"docs": pytest.approx(point.bits_per_byte)}
    assert {point.seed for point in used} == {0, 1}
    assert len({point.params for point in used}) >= 3


def test_the_document_survives_the_disk(ladder, tmp_path):
    path = str(tmp_path / "ladder.json")
    write_ladder(path, ladder)
    again = read_ladder(path)
    assert again == ladder
    assert Ladder.model_validate(json.loads(ladder.to_text())) == ladder
    fit = fit_of(again.fit)
    params, tokens = ladder.prediction.params, ladder.prediction.effective_tokens
    assert fit.predict(params, tokens).value == ladder.prediction.bits_per_byte.value
    assert fit.predict(params, tokens).low == ladder.prediction.bits_per_byte.low


def test_a_file_that_is_no_ladder_is_named(tmp_path):
    with pytest.raises(TokenmillError, match=r"--ladder = .*none.json"):
        read_ladder(str(tmp_path / "none.json"), "--ladder")
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(TokenmillError, match=r"other\.json"):
        read_ladder(str(other))


def test_the_best_plan_is_no_worse_than_the_configured_one(ladder):
    best = ladder.best_plan
    assert best.usd == ladder.prediction.usd
    assert best.bits_per_byte.value <= ladder.prediction.bits_per_byte.value
    assert best.params_low <= best.params <= best.params_high
    assert [each.gain_per_usd for each in ladder.purchases] == sorted(
        (each.gain_per_usd for each in ladder.purchases), reverse=True
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.schedule=wsd", ""),  # as the demo has it
        ("train.schedule=cosine", "lets it fall from the beginning"),
        ("train.decay_fraction=0.1", "train.decay_fraction = 0.1"),
        ("train.warmup_fraction=0.05", "a warm-up of"),
    ],
)
def test_another_schedule_than_the_ladders_is_said_first(override, words):
    found = made_ladder(overrides=[override])
    said = " ".join(shown(found).split())
    assert words in said
    assert words in found.cautions[0] if words else not found.cautions


@pytest.mark.parametrize(
    ("factors", "words", "cautions"),
    [
        ({"half the learning rate": 1.1, "twice the learning rate": 1.05}, "neither half", 0),
        ({"half the learning rate": 1.1, "twice the learning rate": None}, "neither half", 0),
        ({"half the learning rate": 1.1, "twice the learning rate": 0.94}, "twice the rate", 1),
        ({"half the learning rate": 0.94, "twice the learning rate": None}, "half the rate", 1),
    ],
)
def test_the_learning_rate_is_judged(factors, words, cautions):
    found = made_ladder(factors=factors, noise=0.001)
    assert words in found.rate_check.words
    assert sum("train.learning_rate" in each for each in found.cautions) == cautions
    if factors["twice the learning rate"] is None:
        assert found.rate_check.bits_per_byte_twice is None


def test_points_above_the_unigram_model_leave_no_fit_and_no_number():
    found = made_ladder(unigram=1.0)
    assert found.fit is None
    assert found.prediction.bits_per_byte is None
    assert found.best_plan is None
    assert not found.purchases
    assert found.problems
    text = shown(found)
    assert "No fit" in text
    assert "as configured" not in text
    assert "No fit" in render_ladder(found)


def test_a_target_too_far_has_words_and_no_number():
    found = made_ladder(overrides=("model.d_model=2048", "model.layers=24", "model.d_ff=8192"),
                        tokens=1e9, minutes=120)  # fmt: skip
    assert found.fit is not None
    assert found.prediction.bits_per_byte is None
    assert "times the compute" in found.prediction.words
    assert "No prediction" in shown(found)
    render_ladder(found)


def test_the_screen_fits(ladder):
    lines = shown(ladder).rstrip("\n").split("\n")
    # The steps of the text and the small trainings stand above it.
    assert len(lines) <= 45 - 24
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    value = ladder.prediction.bits_per_byte.value
    assert f"{value:.3f}" in text
    for words in ("Law of this text", "Besiroglu", "best for this money", "next purchase",
                  "tokens a step", "/runs/ladder.html"):  # fmt: skip
        assert words in text, words


class _Page(HTMLParser):
    """Counts what opens and closes, and gathers the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.svg = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.svg += tag == "svg"
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_shows_the_same_numbers(ladder):
    html = render_ladder(ladder)
    assert html == render_ladder(ladder)
    page = _Page()
    page.feed(html)
    assert not page.open
    assert page.svg >= 3
    text = "".join(page.text)
    for point in ladder.points:
        assert f"{point.bits_per_byte:.3f}" in text
    for name in ("alpha", "beta"):
        assert name in text
    assert "nan" not in text.lower().replace("finance", "")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https:" not in html


def expected(ladder, **changes):
    given = {"params": 4e6, "params_active": 4e6, "effective_tokens": 4e6, "vocab_size": 4096}
    return expected_by_ladder(ladder.law("l.json"), **{**given, **changes})


def test_a_plan_is_predicted_by_the_ladders_law(ladder):
    found = expected(ladder)
    assert found.bits_per_byte.value == pytest.approx(loss_of(4e6, 4e6), rel=0.03)
    assert found.constants == ladder.fit.constants
    assert [law.source[:10] for law in found.published] == ["Besiroglu ", "Hoffmann e"]
    nats = found.published[0].nats_per_token
    assert found.published[0].bits_per_byte == pytest.approx(
        nats / math.log(2) / ladder.text.bytes_per_token
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 8192}, "vocabulary has 4,096"),
        ({"params": 1e10, "effective_tokens": 1e12}, "times the compute"),
        ({"why_not": "No."}, "No."),
        ({"sparse": True}, "is of a dense model in small, this is a mixture of experts"),
    ],
)
def test_what_a_ladder_cannot_say_is_said_in_words(ladder, changes, words):
    found = expected(ladder, **changes)
    assert found.bits_per_byte is None
    assert words in found.words


def test_a_ladder_of_a_mixture_of_experts_goes_by_its_active_parameters(ladder):
    params = {**ladder.prediction.to_json(), "params_total": 40_000_000, "params_active": 9_000_000}
    sparse = ladder.model_copy(update={"prediction": LadderPrediction.model_validate(params)})
    assert sparse.law("l.json").sparse
    assert not ladder.law("l.json").sparse
    found = expected(sparse, sparse=True, params_active=9e6)
    assert found.bits_per_byte.value == expected(ladder).bits_per_byte.value
    law = found.published[0]
    assert law.nats_per_token == expected_loss(9e6, 4e6)
    assert law.note == SPARSE_NOTE
    assert any(SPARSE_NOTE in words for _, words in ladder_rows(found))
    assert not any(SPARSE_NOTE in words for _, words in ladder_rows(expected(ladder)))
    noted = sparse.model_copy(update={"published": found.published})
    assert SPARSE_NOTE in render_ladder(noted)
    assert " active parameters on" in render_ladder(noted)
    assert " active parameters on" not in render_ladder(ladder)
    assert f"Of the published laws {SPARSE_NOTE}." in law_lines(noted)
    assert "dense model in small" not in expected(sparse, sparse=True).words
    assert "is of a mixture of experts in small" in expected(sparse).words
