"""The limits of the configuration, as the Trainer gets them."""

import pytest

from pipeline.loader import load_config
from tokenmill.cost.meter import BudgetMeter


@pytest.mark.parametrize("on_overrun", ["warn", "stop"])
def test_the_meter_of_a_run_has_the_configured_limits(on_overrun):
    config = load_config(
        "demo",
        overrides=[
            "cost.chip=h100", "cost.chips=4", "cost.price_usd_per_chip_hour=3600",
            "budget.max_usd=400", f"budget.on_overrun={on_overrun}",
        ],
    )  # fmt: skip
    meter = BudgetMeter.of(config.ledger_job().training_limits)
    # 4 dollars a second; 100 steps at 2 s each come to 800.
    decisions = [
        meter.update(seconds_so_far=2.0 * i, tokens_so_far=i, step=i, steps=100)
        for i in range(1, 60)
    ]
    assert next(filter(None, decisions)) == on_overrun
    assert "budget.max_usd" in meter.message


def test_within_the_limits_nothing_is_said():
    config = load_config("demo", overrides=["cost.chip=h100", "cost.chips=1", "budget.max_usd=400"])
    meter = BudgetMeter.of(config.ledger_job().training_limits)
    assert not any(
        meter.update(seconds_so_far=2.0 * i, tokens_so_far=i, step=i, steps=100)
        for i in range(1, 100)
    )
