"""Each step's share of the configuration, as the step takes it; checked before the run starts."""

from components.ledger.config import LedgerJob, make_ledger_job
from components.train.run import TrainingJob
from pipeline.config import Config, absolute_path
from tokenmill.contracts.training_options import RunOptions
from tokenmill.cost.meter import BudgetMeter
from tokenmill.cost.pricing import SECONDS_PER_HOUR


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
    train, budget, ledger = config.train, config.budget, ledger_job(config)
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


def ledger_job(config: Config) -> LedgerJob:
    """The ledger's share, with the catalog's facts of the chip."""
    kept = config.train.keep_checkpoints
    return make_ledger_job(config.cost, config.budget, config.train, config.shape(), kept)
