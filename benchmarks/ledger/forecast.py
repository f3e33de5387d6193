"""How far the measured forecast of training time is from what training takes.

Calibrates, forecasts and trains the demo's model, each time in a fresh process, on the packed rows
of a run that exists. Training is shortened to STEPS steps; compiling and steps are compared.

Usage: python benchmarks/ledger/forecast.py ROWS_URI VOCAB_SIZE [REPEATS] [STEPS]
"""

import json
import subprocess
import sys
import time

REPEATS, STEPS = 5, 25


def once(rows_uri: str, vocab_size: int, steps: int) -> dict[str, float]:
    from components.ledger.calibrate import FirstRows, calibrate
    from components.pack.rows import PackedSplit
    from components.train.loop import Trainer, TrainSettings, make_strategy
    from components.train.models.decoder import Decoder
    from components.train.plan import plan_steps
    from pipeline.config_loader import load_config
    from pipeline.step_settings import training_job

    config = load_config("demo", overrides=[f"tokenizer.vocab_size={vocab_size}"])
    job = training_job(config)
    measured = calibrate(job, rows_uri, on_cpu=True)
    compiling = measured["compile_seconds"] - measured["step_seconds"]
    forecast = compiling + steps * measured["step_seconds"]
    settings = TrainSettings(**job.settings)
    train = PackedSplit(rows_uri, "train")
    held_out = FirstRows(rows_uri, "eval", job.global_batch_size)
    plan = plan_steps(train.rows, job.global_batch_size, 1.0, steps)
    model = Decoder(config.shape(), settings.seed, job.precision)
    trainer = Trainer(make_strategy(job.strategy), model, settings, plan)
    seconds = trainer.fit(train, held_out).seconds
    actual = seconds["compile"] + seconds["steps"] + seconds["input"]
    steady = (seconds["steps"] + seconds["input"]) / (steps - 1)
    return {
        "calibration_seconds": measured["total_seconds"],
        "forecast_seconds": forecast,
        "actual_seconds": actual,
        "ratio": actual / forecast,
        "step_ratio": steady / measured["step_seconds"],
        "compile_forecast": compiling,
        "compile_actual": seconds["compile"] - steady,
        "step_seconds": steady,
    }


def main() -> None:
    if sys.argv[1] == "--once":
        print(json.dumps(once(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    rows_uri, vocab_size = sys.argv[1], sys.argv[2]
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else REPEATS
    steps = sys.argv[4] if len(sys.argv) > 4 else str(STEPS)
    ratios, step_ratios = [], []
    started = time.perf_counter()
    for _ in range(repeats):
        command = [sys.executable, __file__, "--once", rows_uri, vocab_size, steps]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        ratios.append(result["ratio"])
        step_ratios.append(result["step_ratio"])
        print("  ".join(f"{key} {value:.3f}" for key, value in result.items()), flush=True)
    errors = sorted(abs(ratio - 1) for ratio in ratios)
    print(f"{repeats} repeats in {time.perf_counter() - started:.0f} s: actual / forecast "
          f"{min(ratios):.3f} to {max(ratios):.3f}, median error {errors[len(errors) // 2]:.1%}, "
          f"most {errors[-1]:.1%}; seconds a step alone {min(step_ratios):.3f} to "
          f"{max(step_ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
