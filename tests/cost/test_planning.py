"""Plans against published runs, the design's examples, and what must hold for any plan."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.catalog.chips import find_chip, load_chips
from tokenmill.cost.plan.budget_to_model import best_for_budget, tokens_for_budget
from tokenmill.cost.plan.chip_ranking import compare_chips
from tokenmill.cost.plan.document import PlanAnswer, plan_document
from tokenmill.cost.plan.hardware import Hardware
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.cost.plan.planning import PlanRequest, make_plan
from tokenmill.cost.published_runs import load_published_runs
from tokenmill.cost.scaling import expected_loss
from tokenmill.model.typical_shape import PlannedShape

RUNS = {run.name: run for run in load_published_runs()}
BILLED = [
    run.name
    for run in RUNS.values()
    if run.shape and not run.shape_caveat and run.chip_hours and run.tokens and run.chip
]


def hardware_of(name="a100", **change):
    chip = find_chip(name)
    fields = {
        "chip": chip,
        "chips": 8,
        "peak_flops_per_second": chip.peak_flops_per_second,
        "price_usd_per_chip_hour": 2.0,
        "mfu": 0.4,
    }
    return Hardware(**{**fields, **change})


OF_HARDWARE = {field.name for field in fields(Hardware)}


def request(params=1e9, hardware="a100", **change):
    """A request; what Hardware has of the changes is the hardware's."""
    on = {name: change.pop(name) for name in OF_HARDWARE & set(change)}
    usual = {"model": PlannedModel.of_params(params), "unique_tokens": 2e10}
    return PlanRequest(**{**usual, "hardware": hardware_of(hardware, **on), **change})


def document(plan):
    return plan_document(PlanAnswer(plan=plan))


def plan_of_run(run, **change):
    return make_plan(
        request(
            hardware=run.chip,
            model=PlannedModel.of_shape(run.shape),
            unique_tokens=run.tokens,
            chips=run.chips or 1024,
            **change,
        )
    )


def test_there_are_many_billed_runs():
    assert len(BILLED) >= 29


@pytest.mark.parametrize("name", BILLED)
def test_hours_follow_from_the_published_mfu_by_6nd(name):
    """The published N gives the MFU; the shape's own N and the catalog's peak give the hours."""
    run = RUNS[name]
    flops = 6 * run.params_active * run.tokens
    mfu = flops / (run.chip_hours * 3600 * run.peak_flops_per_second)
    plan = plan_of_run(run, mfu=mfu, flops_basis="6n")
    assert plan.cost.chip_hours == pytest.approx(run.chip_hours, rel=0.03)


@pytest.mark.parametrize(
    "name", [run.name for run in RUNS.values() if run.is_sparse and run.chip_hours]
)
def test_hours_of_sparse_runs_follow_from_the_published_mfu_and_counts(name):
    """Of total and active parameters alone: FLOPs are of the active ones."""
    run = RUNS[name]
    seconds, peak = run.chip_hours * 3600, find_chip(run.chip).peak_flops_per_second
    plan = make_plan(
        request(
            hardware=run.chip,
            model=PlannedModel.of_params(run.params_total, run.params_active),
            unique_tokens=run.tokens,
            chips=run.chips or 1024,
            mfu=6 * run.params_active * run.tokens / (seconds * peak),
            flops_basis="6n",
        )
    )
    assert plan.cost.chip_hours == pytest.approx(run.chip_hours, rel=0.03)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        # "24.6 TFLOP/s per V100 measured" (Patterson et al. 2021, table 4)
        ("GPT-3 175B", {"mfu": 24.6 / 125, "flops_basis": "6n"}),
        # "~4.30E+23 FLOPs of compute", 147 TFLOP/s with full recomputation
        ("OPT-175B", {"hfu": 147 / 312, "recompute": "full"}),
        # "300 ms/iter of 524,288 tokens", "820 ms", "32,000 steps * 2.7s"
        ("llm.c GPT-2 124M", {"observed_tokens_per_second": 524_288 / 0.300}),
        ("llm.c GPT-2 1558M", {"observed_tokens_per_second": 1_048_576 / 2.7}),
        # "102 TFLOP/s per GPU average = HARDWARE FLOPs (activation checkpointing)"
        ("BloombergGPT 50B", {"hfu": 102 / 312, "recompute": "full"}),
        # 37.2 % of 990 TFLOP/s (Epoch)
        ("MPT-30B (H100-equivalent quote)", {"mfu": 0.372, "flops_basis": "6n"}),
    ],
)
def test_hours_follow_from_what_the_source_says_of_speed(name, change):
    run = RUNS[name]
    plan = plan_of_run(run, **{"mfu": None, **change})
    assert plan.cost.chip_hours == pytest.approx(run.chip_hours, rel=0.03)


def test_llama_3_405b_has_its_goodput():
    # 400 TFLOP/s a GPU at 16,384 GPUs; "higher than 90 % effective training time" (Llama Team
    # 2024, sec. 3.3.4): the bill of 30.84e6 hours lies between 90 % and 100 %.
    run = RUNS["Llama 3.1 405B"]
    hours = [plan_of_run(run, mfu=400 / 989, goodput=g).cost.chip_hours for g in (1.0, 0.9)]
    assert hours[0] < run.chip_hours < hours[1]


def test_palm_steps_and_bill():
    """46.2 % in the steps, 30.4 % (by 6N) of the whole bill: goodput 0.658."""
    run = RUNS["PaLM 540B"]
    assert run.shape.params_total == pytest.approx(540.35e9, rel=1e-4)
    bill = plan_of_run(run, mfu=0.304, flops_basis="6n")
    assert bill.cost.chip_hours == pytest.approx(run.chip_hours, rel=0.003)
    steps = plan_of_run(run, mfu=None, observed_tokens_per_second=238.3e3)
    assert steps.mfu == pytest.approx(0.462, abs=5e-4)
    both = plan_of_run(run, mfu=0.462, goodput=0.304 / 0.462, flops_basis="6n")
    assert both.cost.chip_hours == pytest.approx(bill.cost.chip_hours)
    assert both.tokens_per_second == pytest.approx(238.3e3, rel=0.02)
    # HFU 57.8 % with full recomputation of the layers (PaLM, appendix B).
    hfu = plan_of_run(run, mfu=0.462, recompute="full").hfu
    assert hfu == pytest.approx(0.462 * 4 / 3, rel=0.01)


def test_design_examples():
    bert = make_plan(
        request(
            3.4e8,
            hardware="rtx-3090",
            unique_tokens=1.28e10,
            chips=1,
            peak_flops_per_second=33e12,
            mfu=1.0,
        )
    )
    assert bert.cost.total_flops == pytest.approx(2.61e19, rel=1e-3)
    assert bert.cost.wall_hours / 24 == pytest.approx(9.2, abs=0.05)
    palm = make_plan(
        request(5.4e11, unique_tokens=7.8e11, chips=1, peak_flops_per_second=1e18, mfu=1.0)
    )
    assert palm.cost.wall_seconds == pytest.approx(2.53e6, rel=2e-3)
    assert palm.cost.wall_hours == pytest.approx(702, abs=0.5)
    pod = make_plan(request(5.4e11, hardware="tpu-v4", unique_tokens=7.8e11, chips=6144))
    assert pod.cost.compute_usd == pytest.approx(2.0 * 6144 * pod.cost.wall_hours)


def test_without_mfu_there_is_a_range_from_published_bills():
    plan = make_plan(request(7e9, mfu=None))
    assert plan.utilization is not None
    assert plan.mfu == plan.utilization.median
    assert plan.cost_low.chip_hours < plan.cost.chip_hours < plan.cost_high.chip_hours
    given_one = make_plan(request(7e9))
    assert given_one.cost_low == given_one.cost == given_one.cost_high


def test_observed_throughput_gives_mfu_and_hfu_and_its_own_hours():
    plan = make_plan(
        request(mfu=None, observed_tokens_per_second=1e5, recompute="full", unique_tokens=3.6e8)
    )
    assert plan.cost.wall_hours == pytest.approx(1.0)
    assert plan.mfu == pytest.approx(1e5 * 6e9 / (8 * 312e12))
    assert 1.25 < plan.hfu / plan.mfu < 4 / 3
    with pytest.raises(ValueError, match="observed-tokens-per-second"):
        make_plan(request(mfu=None, observed_tokens_per_second=1e9))


def test_a_bare_count_of_parameters_has_an_approximate_exact_count():
    model = PlannedModel.of_params(6.7e9)
    shape = model.shape
    attention = 12 * shape.layers * shape.d_model * shape.sequence_length
    assert model.flops_per_token_exact == pytest.approx(6 * 6.7e9 + attention)
    assert model.memory(1, "float32", "none", False).weights == pytest.approx(4 * 6.7e9, rel=1e-6)
    sparse = PlannedModel.of_params(671e9, 37e9)
    assert sparse.flops_per_token_6n == 6 * 37e9
    assert sparse.memory(1, "bfloat16", "none", False).weights == pytest.approx(2 * 671e9)


sizes = st.floats(1e7, 1e12)
factors = st.floats(1.05, 50)


@given(
    params=sizes,
    tokens=st.floats(1e6, 1e13),
    more=factors,
    field=st.sampled_from(["tokens", "params", "price", "epochs"]),
)
def test_cost_grows_with_tokens_params_price_and_epochs(params, tokens, more, field):
    small = request(params, unique_tokens=tokens)
    large = {
        "tokens": lambda: replace(small, unique_tokens=tokens * more),
        "params": lambda: replace(small, model=PlannedModel.of_params(params * more)),
        "price": lambda: replace(
            small, hardware=replace(small.hardware, price_usd_per_chip_hour=2.0 * more)
        ),
        "epochs": lambda: replace(small, epochs=more),
    }[field]()
    few, many = make_plan(small), make_plan(large)
    assert many.cost.compute_usd == pytest.approx(more * few.cost.compute_usd)
    assert many.cost.total_usd_low > few.cost.total_usd_low


@given(
    field=st.sampled_from(["mfu", "goodput"]),
    value=st.floats(0.02, 0.49),
    more=st.floats(1.01, 2),
)
def test_cost_falls_with_mfu_and_goodput(field, value, more):
    slow = make_plan(request(**{field: value})).cost
    fast = make_plan(request(**{field: value * more})).cost
    assert slow.chip_hours == pytest.approx(more * fast.chip_hours)


@given(chips=st.sampled_from([1, 2, 16, 1024]), params=sizes)
def test_chips_shorten_the_wait_and_not_the_bill(chips, params):
    one, many = (make_plan(request(params, chips=count)).cost for count in (1, chips))
    assert many.chip_hours == pytest.approx(one.chip_hours)
    assert many.wall_hours * chips == pytest.approx(one.wall_hours)


@given(
    budget=st.floats(10, 1e8),
    mfu=st.floats(0.05, 0.6),
    hardware=st.sampled_from(["a100", "rtx-4090", "tpu-v5e"]),
)
def test_the_budget_buys_what_costs_the_budget(budget, mfu, hardware):
    chips = hardware_of(hardware, mfu=mfu, goodput=0.9)
    best = best_for_budget(budget, chips)
    fixed = best_for_budget(budget, chips, tokens=best.tokens * 3)
    known = tokens_for_budget(budget, chips, PlannedModel.of_params(1e9), "6n")
    assert known.tokens == pytest.approx(known.flops / 6e9)
    for line in (best, fixed, known):
        plan = make_plan(
            request(
                line.params,
                hardware=hardware,
                unique_tokens=line.tokens,
                mfu=mfu,
                goodput=0.9,
            )
        )
        assert plan.cost.compute_usd == pytest.approx(budget, rel=1e-6)
        # No other split of the same money has a lower expected loss.
        assert line.loss_besiroglu >= best.loss_besiroglu - 1e-12
    away = expected_loss(best.params * 1.3, best.tokens / 1.3)
    assert away > best.loss_besiroglu


def test_the_budget_without_mfu_is_a_fixed_point():
    best = best_for_budget(1e6, hardware_of("h100", mfu=None, price_usd_per_chip_hour=3.0))
    plan = make_plan(
        request(
            best.params,
            hardware="h100",
            unique_tokens=best.tokens,
            mfu=None,
            price_usd_per_chip_hour=3.0,
        )
    )
    assert plan.mfu == best.mfu
    assert plan.cost.compute_usd == pytest.approx(1e6, rel=1e-6)


def test_comparison_ranks_by_cost_and_by_time():
    lines = compare_chips(request(mfu=None))
    assert {line.chip for line in lines} == {
        chip.slug for chip in load_chips() if chip.peak_flops_per_second
    }
    priced = [line for line in lines if line.compute_usd is not None]
    assert [line.rank_by_cost for line in priced] == list(range(1, len(priced) + 1))
    assert [line.compute_usd for line in priced] == sorted(line.compute_usd for line in priced)
    by_time = sorted(lines, key=lambda line: line.rank_by_time)
    assert [line.wall_hours for line in by_time] == sorted(line.wall_hours for line in lines)
    own = next(line for line in lines if line.chip == "a100-sxm4-80gb")
    assert (own.price_usd_per_chip_hour, own.price_label) == (2.0, "given")
    assert all(line.rank_by_cost is None for line in lines if line.compute_usd is None)


def test_storage_and_network_are_by_rate_and_not_in_the_total():
    plain = make_plan(request())
    rated = make_plan(request(storage_usd_per_gb_month=0.02, network_usd_per_gb=0.1))
    assert plain.storage_usd is plain.network_usd is None
    gigabytes = (2e10 * 4 + rated.checkpoints.disk_bytes) / 1e9
    assert rated.network_usd == pytest.approx(0.1 * gigabytes)
    months = rated.cost.wall_hours / 730
    assert rated.storage_usd == pytest.approx(0.02 * gigabytes * months)
    assert rated.cost == plain.cost


def test_document_has_null_money_without_a_price():
    unpriced = document(make_plan(request(price_usd_per_chip_hour=None)))
    for key in ("compute_usd", "total_usd_low", "total_usd_high"):
        assert unpriced[key] is None
    assert unpriced["chip_hours"] > 0


def test_repetition_is_discounted_and_flagged():
    many = document(make_plan(request(epochs=5)))
    assert many["guidance"]["repetition"]["over_limit"]
    assert many["effective_tokens"] < many["tokens"] == 1e11
    four = document(make_plan(request(epochs=4)))
    assert not four["guidance"]["repetition"]["over_limit"]


def test_encoder_decoder_plans():
    shape = PlannedShape(
        layers=12,
        encoder_layers=12,
        d_model=768,
        heads=12,
        d_ff=3072,
        vocab_size=32128,
        sequence_length=512,
        positions="rope",
        norm="rms",
        use_bias=False,
        mlp="gelu",
        tie_embeddings=True,
    )
    plan = make_plan(request(model=PlannedModel.of_shape(shape)))
    assert plan.cost.total_flops < 6 * shape.params_total * 2e10


def network(**change):
    return make_plan(request(strategy="data", **change)).network


def test_the_slower_of_two_hops_is_what_sending_takes():
    alone = network(chips=8)
    assert alone.between.sent_bytes == 0
    assert alone.seconds == alone.link.seconds == alone.sent_bytes / 300e9
    # An eighth goes between machines, at a twelfth of the rate.
    many = network(chips=1024)
    assert many.chips_per_machine == 8
    assert many.link.sent_bytes == alone.link.sent_bytes
    assert many.between.seconds > many.link.seconds
    assert many.seconds == many.between.seconds == many.between.sent_bytes / 25e9
    assert many.missing == ""


def test_a_step_has_all_its_micro_batches():
    one, four = network(chips=8), network(chips=8, accumulation_steps=4)
    assert four.step_seconds == pytest.approx(4 * one.step_seconds)
    assert four.sent_bytes == one.sent_bytes  # gradients are summed once a step
    given = [network(chips=8, global_batch_size=64, accumulation_steps=n) for n in (1, 4)]
    assert given[0].step_seconds == given[1].step_seconds


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ("chips_per_machine", "how many chips a machine has"),
        ("interconnect_bytes_per_second", "how fast the chips of a machine are joined"),
        ("network_bytes_per_second", "how fast machines are joined"),
    ],
)
def test_without_a_figure_there_is_no_verdict(lacks, words):
    chip = replace(find_chip("a100"), **{lacks: None})
    found = network(chips=64, chip=chip)
    assert found.seconds is None
    assert found.missing == words
    assert document(make_plan(request(chips=64, chip=chip)))["network_seconds_per_step"] is None
    # Within a machine nobody asks how fast machines are joined.
    alone = network(chips=8, chip=chip)
    assert (alone.seconds is None) is (lacks != "network_bytes_per_second")
    assert network(chips=1, chip=chip).seconds == 0


def test_what_a_model_without_experts_cannot_spread_is_refused():
    with pytest.raises(ValueError, match="expected a model with experts"):
        make_plan(request(strategy="expert"))


def test_a_copy_of_the_checkpoint_is_in_a_cpus_own_memory():
    copied = 12e9  # bytes: weights and two moments of 1e9 parameters, float32
    on_gpu = make_plan(request(precision="float32"))
    assert on_gpu.checkpoint_copy_bytes == pytest.approx(copied, rel=0.01)
    assert on_gpu.needed_bytes == on_gpu.memory.total

    def on_cpu(memory):
        return make_plan(
            request(hardware="cpu-vcpu", precision="float32", peak_flops_per_second=1e11,
                    machine_memory_bytes=memory)
        )  # fmt: skip

    total = on_cpu(None).memory.total
    assert on_cpu(None).needed_bytes == total + on_gpu.checkpoint_copy_bytes
    assert on_cpu(int((total + 11e9) / 0.9)).fits[0].fits is False
    assert on_cpu(int((total + 13e9) / 0.9)).fits[0].fits is True
