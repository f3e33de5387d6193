"""Each step's share of the configuration, as the step takes it; checked before the run starts."""

import os

from components.ledger.settings import Budget, Hosting, LedgerSettings
from components.train.run import TrainingJob
from data.catalog.chips import Price, find_chip
from pipeline.config import Config, absolute_path
from tokenmill.contracts.training_options import RunOptions
from tokenmill.cost.devices import CPU_CHIP, USER_PRICE
from tokenmill.cost.meter import BudgetMeter
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.cost.utilization import utilization_range
from tokenmill.errors import TokenmillError


def training_job(config: Config) -> TrainingJob:
    """The train step's share."""
    train = config.train
    return TrainingJob(
        shape=config.shape().__dict__,
        settings={
            "learning_rate": train.learning_rate,
            "warmup_fraction": train.warmup_fraction,
            "weight_decay": train.weight_decay,
            "clip_norm": train.clip_norm,
            "schedule": train.schedule,
            "decay_fraction": train.decay_fraction,
            "final_learning_rate_fraction": train.final_learning_rate_fraction,
            "beta_2": train.beta_2,
            "z_loss": train.z_loss,
            "jit_compile": train.jit_compile,
            "seed": config.run.seed,
            "accumulation_steps": train.accumulation_steps,
            "on_spike": train.on_spike,
            "spike_deviations": train.spike_deviations,
            "rewind_steps": train.rewind_steps,
        },
        strategy=train.strategy,
        precision=train.precision,
        global_batch_size=train.global_batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
        weights=config.push.quantization,
        dropout=train.dropout,
        rematerialize=train.rematerialize,
        base_model=config.model.base_model,
        resume_from=absolute_path(train.resume_from) if train.resume_from else None,
    )


def run_options(config: Config, fresh: bool) -> RunOptions:
    """How the train step is carried out: what may change without training anew.

    Args:
        config: The resolved configuration.
        fresh: Start over, whatever checkpoints there are.
    """
    train, budget, ledger = config.train, config.budget, ledger_settings(config)
    peak, price = ledger.peak_flops_per_second_per_chip, ledger.price.usd_per_chip_hour
    meter = BudgetMeter(
        price_usd_per_chip_hour=price,
        chips=ledger.chips,
        max_usd=budget.max_usd,
        max_hours=budget.max_hours,
        on_overrun=budget.on_overrun,
    )
    return RunOptions(
        checkpoint_steps=train.checkpoint_steps,
        checkpoint_seconds=train.checkpoint_seconds,
        mtbf_hours=train.mtbf_hours,
        keep_checkpoints=train.keep_checkpoints,
        keep_checkpoint_every_steps=train.keep_checkpoint_every_steps,
        keep_best_checkpoint=train.keep_best_checkpoint,
        evaluate_steps=train.evaluate_steps,
        log_steps=train.log_steps,
        detail_steps=train.detail_steps,
        profile_steps=train.profile_steps,
        fresh=fresh,
        peak_flops_per_second=None if peak is None else peak * ledger.chips,
        measure_peak=peak is None,
        usd_per_second=price * ledger.chips / SECONDS_PER_HOUR,
        budget=meter.to_json(),
    )


def ledger_settings(config: Config) -> LedgerSettings:
    """The ledger's share, with the catalog's facts of the chip.

    Raises:
        TokenmillError: The chip is unknown, or has no price or number and none was given.
    """
    cost, train = config.cost, config.train
    try:
        chip = find_chip(cost.chip)
    except ValueError as error:
        raise TokenmillError(f"cost.chip: {error}") from None
    chips = cost.chips
    is_this_cpu = chip.slug == CPU_CHIP
    if chips == "auto":
        if not is_this_cpu:
            raise TokenmillError(
                f'cost.chips = "auto" counts this machine\'s cores; {chip.slug} needs a number.',
                "Set cost.chips.",
            )
        chips = len(os.sched_getaffinity(0))
    peak = cost.peak_flops_per_second_per_chip
    if peak is None and not is_this_cpu:
        peak = chip.peak_for(train.precision)
    if peak is None and not is_this_cpu:
        raise TokenmillError(
            f"the catalog has no peak for {chip.slug}.",
            "Set cost.peak_flops_per_second_per_chip.",
        )
    mfu: float | None = cost.mfu if isinstance(cost.mfu, float) else None
    shape = config.shape()
    published = None
    if cost.mfu == "auto" and not is_this_cpu:
        published = utilization_range(chip, shape.params_total)
    if mfu is None and published is None and train.strategy == "multi_worker":
        raise TokenmillError(
            f'cost.mfu = "{cost.mfu}" times training in one process, which train.strategy = '
            '"multi_worker" is not.',
            "Give cost.mfu as a number: what an earlier run reached (tokenmill runs), or 0.4.",
        )
    price = _price(config)
    vcpu_price = price.usd_per_chip_hour
    if not is_this_cpu:
        vcpu_price = find_chip(CPU_CHIP).price_usd_per_chip_hour or 0.0
    budget = config.budget
    return LedgerSettings(
        shape=shape.__dict__,
        strategy=train.strategy,
        precision=train.precision,
        recompute="full" if train.rematerialize else "none",
        dropout=train.dropout,
        accumulation_steps=train.accumulation_steps,
        global_batch_size=train.global_batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
        chip=chip.slug,
        chips=chips,
        peak_flops_per_second_per_chip=peak,
        memory_bytes_per_chip=chip.memory_bytes,
        mfu=mfu,
        published_mfu=published,
        goodput=cost.goodput,
        price=price,
        vcpu_price_usd_per_hour=vcpu_price,
        hidden_cost_multiplier_low=cost.hidden_cost_multiplier_low,
        hidden_cost_multiplier_high=cost.hidden_cost_multiplier_high,
        goal=cost.goal,
        budget=Budget(
            max_usd=budget.max_usd,
            max_hours=budget.max_hours,
            min_effective_tokens=budget.min_effective_tokens,
            max_epochs=budget.max_epochs,
        ),
        hosting=Hosting(
            storage_usd_per_gb_month=cost.storage_usd_per_gb_month,
            storage_months=cost.storage_months,
            network_usd_per_gb=cost.network_usd_per_gb,
            chip_mtbf_hours=cost.chip_mtbf_hours,
            checkpoint_bytes_per_second=cost.checkpoint_bytes_per_second,
            checkpoints_kept=train.keep_checkpoints,
            restart_seconds=cost.restart_seconds,
        ),
    )


def _price(config: Config) -> Price:
    """The user's price, or the catalog's.

    Raises:
        TokenmillError: Neither is there.
    """
    cost = config.cost
    if cost.price_usd_per_chip_hour is not None:
        return Price(
            usd_per_chip_hour=cost.price_usd_per_chip_hour,
            provider="the configuration",
            date=cost.price_date,
            source=USER_PRICE,
        )
    chip = find_chip(cost.chip)
    if not chip.prices:
        raise TokenmillError(
            f"the catalog has no price for {chip.slug}.", "Set cost.price_usd_per_chip_hour."
        )
    return chip.prices[0]
