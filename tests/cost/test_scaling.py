import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.cost.guidance import guidance, token_guidance
from tokenmill.cost.scaling import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    R_STAR_REPETITIONS,
    SPARSE_NOTE,
    chinchilla_optimal_tokens,
    expected_loss,
    optimal_params_and_tokens,
    repetition_discounted_tokens,
)


@pytest.mark.parametrize(("epochs", "worth"), [(0, 0), (0.25, 0.25), (1, 1)])
def test_up_to_one_epoch_counts_in_full(epochs, worth):
    assert repetition_discounted_tokens(1e9, epochs) == worth * 1e9


def test_four_epochs_are_almost_as_good_as_unique():
    # Muennighoff et al.'s headline; by the formula 3.73 of 4.
    assert repetition_discounted_tokens(1.0, 4) == pytest.approx(3.726, abs=0.001)
    assert repetition_discounted_tokens(1.0, 1 + R_STAR_REPETITIONS) == pytest.approx(
        1 + R_STAR_REPETITIONS * 0.63212, abs=1e-3
    )


@given(unique=st.floats(1, 1e13), epochs=st.floats(0, 500), more=st.floats(0, 100))
def test_repetition_never_pays_more_than_unique_tokens(unique, epochs, more):
    worth = repetition_discounted_tokens(unique, epochs)
    slack = 1 + 1e-12
    assert worth <= unique * epochs * slack
    assert worth <= unique * (1 + R_STAR_REPETITIONS) * slack
    assert repetition_discounted_tokens(unique, epochs + more) >= worth / slack


def test_the_two_branches_meet():
    below = repetition_discounted_tokens(1e12, 1 - 1e-9)
    above = repetition_discounted_tokens(1e12, 1 + 1e-9)
    assert above == pytest.approx(below, rel=1e-8)


def test_chinchilla():
    assert chinchilla_optimal_tokens(70e9) == 1.4e12


def test_expected_loss_of_chinchilla_itself():
    assert expected_loss(70e9, 1.4e12, HOFFMANN_2022) == pytest.approx(1.937, abs=0.001)
    assert expected_loss(70e9, 1.4e12, BESIROGLU_2024) == pytest.approx(1.974, abs=0.001)


def test_only_the_corrected_fit_agrees_with_20_tokens_a_parameter():
    budget = 5.76e23
    params, tokens = optimal_params_and_tokens(budget, BESIROGLU_2024)
    assert tokens / params == pytest.approx(20, rel=0.15)
    assert params == pytest.approx(70e9, rel=0.1)
    params, tokens = optimal_params_and_tokens(budget, HOFFMANN_2022)
    assert tokens / params > 60


@given(
    flops=st.floats(1e17, 1e27),
    fit=st.sampled_from([HOFFMANN_2022, BESIROGLU_2024]),
    away=st.sampled_from([0.5, 0.9, 1.1, 2]),
)
def test_the_optimum_spends_the_budget_and_is_one(flops, fit, away):
    params, tokens = optimal_params_and_tokens(flops, fit)
    assert 6 * params * tokens == pytest.approx(flops)
    best = expected_loss(params, tokens, fit)
    assert best < expected_loss(params * away, tokens / away, fit)


@given(params=st.floats(1e6, 1e12), tokens=st.floats(1e6, 1e14), more=st.floats(1.1, 100))
def test_loss_falls_with_params_and_tokens(params, tokens, more):
    for fit in (HOFFMANN_2022, BESIROGLU_2024):
        loss = expected_loss(params, tokens, fit)
        assert fit.e < loss
        assert expected_loss(params * more, tokens, fit) < loss
        assert expected_loss(params, tokens * more, fit) < loss


@pytest.mark.parametrize(
    ("goal", "params", "minimum", "usual"),
    [
        ("fine_tune", 1.1e8, 1e6, 1e6),
        ("domain_adaptive", 1.1e8, 1e9, 1e9),
        ("from_scratch", 1e10, 2e11, 1e12),
    ],
)
def test_goals_of_the_design(goal, params, minimum, usual):
    few = token_guidance(goal, minimum * 0.99, params)
    assert (few.minimum_tokens, few.usual_tokens) == (minimum, usual)
    assert few.verdict == "below_minimum"
    assert "too little" in few.message
    assert token_guidance(goal, usual, params).verdict == "usual"
    if usual > minimum:
        assert token_guidance(goal, minimum, params).verdict == "enough"


def test_a_mixture_of_experts_is_judged_by_its_active_parameters_and_told_so():
    def guided(total):
        return guidance(
            params_total=total, params_active=1e9, flops_6n=6e19, effective_tokens=1e10,
            epochs=1.0, goal="from_scratch",
        )  # fmt: skip

    dense, sparse = guided(1e9), guided(8e9)
    assert sparse.expected_loss.nats_per_token == dense.expected_loss.nats_per_token
    assert sparse.expected_loss.nats_per_token == expected_loss(1e9, 1e10)
    assert sparse.chinchilla.tokens_per_param == 10
    assert "1 billion active parameters" in sparse.goal.message
    assert SPARSE_NOTE in sparse.expected_loss.source
    assert "active" not in dense.goal.message
    assert SPARSE_NOTE not in dense.expected_loss.source


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: token_guidance("distil", 1e6, 1e6), "goal = 'distil'"),
        (lambda: token_guidance("fine_tune", -1, 1e6), "tokens = -1"),
        (lambda: repetition_discounted_tokens(-1, 1), "unique_tokens = -1"),
        (lambda: repetition_discounted_tokens(1, -1), "epochs = -1"),
        (lambda: expected_loss(0, 1e9), "params = 0"),
        (lambda: optimal_params_and_tokens(0), "total_flops = 0"),
    ],
)
def test_a_wrong_argument_is_named(call, words):
    with pytest.raises(ValueError, match="expected") as caught:
        call()
    assert words in str(caught.value)
