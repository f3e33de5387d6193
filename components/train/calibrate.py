"""A short run of the true training loop, so that the forecast is measured and not guessed.

The model, optimizer, batches and compiled steps are the trainer's own; only the number of steps is
small. The weights are thrown away.
"""

import time

from components.train.config import TrainingJob
from components.train.distributed.strategy import has_accelerator, make_strategy
from components.train.loop import Trainer
from components.train.telemetry.samples import choose_prompts, make_generator
from tokenmill.contracts.calibration import Calibration
from tokenmill.contracts.training import Phase
from tokenmill.cost.device_benchmark import measure_matmul_flops_per_second
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError
from tokenmill.machine import memory_bytes, peak_process_bytes, process_bytes, vcpus
from tokenmill.model.backbone import Backbone
from tokenmill.model.build import build_model
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import Mixture, plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.widths import widths

# Long enough to be above the noise of single steps, short enough to be no burden.
TARGET_SECONDS = 6.0
_MIN_STEPS, _MAX_STEPS = 4, 40
_EVALUATION_BATCHES = 4
# To choose the number of steps before any was timed.
_USUAL_MFU = 0.4


class FirstRows(PackedSplit):
    """The first rows of a split."""

    def __init__(self, uri: str, split: str, rows: int):
        super().__init__(uri, split)
        self.rows = min(rows, self.rows)


def calibrate(
    job: TrainingJob, rows_uri: str, on_cpu: bool, start_seconds: float = 0.0, samples: int = 0
) -> Calibration:
    """Train for some seconds and measure how fast it goes.

    Args:
        job: What the Trainer will be given.
        rows_uri: The packed rows that it will read.
        on_cpu: Whether the chips are this machine's cores; otherwise an accelerator must be there.
        start_seconds: What this process took to start, as the Trainer's will.
        samples: Held-out texts that the Trainer will continue.

    Raises:
        TokenmillError: There is no accelerator to measure.
    """
    if not on_cpu and not has_accelerator():
        raise TokenmillError(
            'cost.mfu = "measured" times training on this machine, which has no accelerator.',
            "Give cost.mfu as a number, or run where the chip is.",
        )
    if job.train.strategy == "multi_worker":
        raise TokenmillError(
            'cost.mfu = "measured" times training in one process, not with train.strategy = '
            '"multi_worker".',
            "Give cost.mfu as a number.",
        )
    started = time.perf_counter()
    # Masks grow sixteen times in a whole training, which the few steps here would all pay for.
    shape, config = job.shape, job.train.model_copy(update={"prune_sparsity": 0.0})
    batch = config.global_batch_size
    train = PackedSplit(rows_uri, "train")
    eval_rows = FirstRows(rows_uri, "eval", _EVALUATION_BATCHES * batch)
    peak = measure_matmul_flops_per_second() if on_cpu else None
    steps = _steps(shape, batch, peak, config.lora)
    if train.task == "classification":  # each width may come once, to be compiled
        steps += len(widths(shape.sequence_length))
    measured = time.perf_counter()
    strategy = make_strategy(config.strategy)
    runtime_bytes = process_bytes()
    with strategy.scope():
        model = build_model(
            shape, job.seed, config.precision, config.dropout, config.rematerialize, config.lora
        )
    available = Mixture.of(train.manifest).rows_available
    plan = plan_steps(train.rows, batch, 1000.0, steps + 1, available)
    if plan.steps < 2:
        raise TokenmillError(
            f"{train.rows} rows are too few for two steps of {batch}: nothing to measure.",
            "Lower train.global_batch_size, or give cost.mfu as a number.",
        )
    trainer = Trainer(strategy, model, config, plan, job.seed)
    built = time.perf_counter()
    record = trainer.fit(train, eval_rows)
    seconds, rate = record.seconds, record.tokens_per_second
    assert rate is not None, "at least one step does not compile"
    evaluate_seconds = seconds[Phase.EVALUATE_AFTER]
    first_samples_seconds, samples_seconds = _sampling_seconds(model, eval_rows, samples)
    achieved = rate * flops_per_token(shape, lora=config.lora).training
    return Calibration(
        tokens_per_second=rate,
        achieved_flops_per_second=achieved,
        # A machine under load may have done better in training than in the short measurement.
        peak_flops_per_second=None if peak is None else max(peak, achieved),
        steps=plan.steps - 1,
        step_seconds=(step_seconds := batch * train.manifest.slots / train.rows / rate),
        step_cpu_seconds=step_seconds * record.steady_cpu_seconds / record.steady_seconds,
        start_seconds=start_seconds,
        build_seconds=built - measured,
        compile_seconds=seconds[Phase.COMPILE],
        evaluate_batch_seconds=evaluate_seconds / -(-eval_rows.rows // batch),
        # The first evaluation compiles, the second does not.
        evaluate_compile_seconds=max(0.0, seconds[Phase.EVALUATE_BEFORE] - evaluate_seconds),
        first_samples_seconds=first_samples_seconds,
        samples_seconds=samples_seconds,
        vcpus=vcpus(),
        memory_bytes=memory_bytes(),
        runtime_bytes=runtime_bytes,
        peak_process_bytes=peak_process_bytes(),
        total_seconds=start_seconds + time.perf_counter() - started,
    )


def _sampling_seconds(model: Backbone, eval_rows: PackedSplit, samples: int) -> tuple[float, float]:
    """Time how held-out texts are continued, the first time and after; zeros without any."""
    prompts = choose_prompts(eval_rows, samples)
    generate = make_generator(model, eval_rows, prompts, model.shape_config.vocab_size)
    if generate is None:
        return 0.0, 0.0
    times = [time.perf_counter()]
    for _ in range(2):
        generate()
        times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1]


def _steps(
    shape: ModelShape, batch: int, peak: float | None, lora: LoraConfig | None = None
) -> int:
    if peak is None:
        return _MAX_STEPS
    flops = flops_per_token(shape, lora=lora).training * batch * shape.sequence_length
    steps = round(TARGET_SECONDS * peak * _USUAL_MFU / flops)
    return max(_MIN_STEPS, min(_MAX_STEPS, steps))
