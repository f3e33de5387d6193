"""Distance of the measured forecast of training time from what training takes.

Calibrates, forecasts and trains the demo's model, each time in a fresh process, on the packed rows
of a run that exists. Training is shortened to STEPS steps; compiling and steps are compared. A
repeat that begins before SECONDS have passed is finished; RESULTS gets a JSON line of each, from
call to call.

Usage: python benchmarks/ledger/forecast.py ROWS_URI VOCAB_SIZE RESULTS [REPEATS [STEPS [SECONDS]]]
"""

import json
import os
import subprocess
import sys
import time

REPEATS, STEPS, SECONDS = 10, 20, 150.0


def once(rows_uri: str, vocab_size: int, steps: int) -> dict[str, float]:
    from components.train.calibrate import FirstRows, calibrate
    from components.train.distributed.strategy import make_strategy
    from components.train.loop import Trainer
    from pipeline.loader import load_config
    from tokenmill.model.build import build_model
    from tokenmill.rows.mixture import plan_steps
    from tokenmill.rows.packed_split import PackedSplit

    config = load_config("demo", overrides=[f"tokenizer.vocab_size={vocab_size}"])
    job = config.training_job()
    measured = calibrate(job, rows_uri, on_cpu=True)
    compiling = measured.compile_seconds - measured.step_seconds
    forecast = compiling + steps * measured.step_seconds
    train = PackedSplit(rows_uri, "train")
    held_out = FirstRows(rows_uri, "eval", job.train.global_batch_size)
    plan = plan_steps(train.rows, job.train.global_batch_size, 1.0, steps)
    strategy = make_strategy(job.train.strategy)
    with strategy.scope():
        model = build_model(job.shape, job.seed, job.train.precision, job.train.dropout)
    trainer = Trainer(strategy, model, job.train, plan, job.seed)
    seconds = trainer.fit(train, held_out).seconds
    actual = seconds["compile"] + seconds["steps"] + seconds["input"]
    steady = (seconds["steps"] + seconds["input"]) / (steps - 1)
    return {
        "calibration_seconds": measured.total_seconds,
        "forecast_seconds": forecast,
        "actual_seconds": actual,
        "ratio": actual / forecast,
        "step_ratio": steady / measured.step_seconds,
        "compile_forecast": compiling,
        "compile_actual": seconds["compile"] - steady,
        "step_seconds": steady,
    }


def main() -> None:
    if sys.argv[1] == "--once":
        print(json.dumps(once(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    rows_uri, vocab_size, results = sys.argv[1:4]
    repeats = int(sys.argv[4]) if len(sys.argv) > 4 else REPEATS
    steps = sys.argv[5] if len(sys.argv) > 5 else str(STEPS)
    limit = float(sys.argv[6]) if len(sys.argv) > 6 else SECONDS
    started = time.perf_counter()
    lines = read(results)
    while len(lines) < repeats and time.perf_counter() - started < limit:
        command = [sys.executable, __file__, "--once", rows_uri, vocab_size, steps]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        with open(results, "a", encoding="utf-8") as sink:
            sink.write(done.stdout.splitlines()[-1] + "\n")
        lines = read(results)
        print("  ".join(f"{key} {value:.3f}" for key, value in lines[-1].items()), flush=True)
    ratios = sorted(line["ratio"] for line in lines)
    errors = sorted(abs(ratio - 1) for ratio in ratios)
    alone = [line["step_ratio"] for line in lines]
    took = [line["calibration_seconds"] for line in lines]
    print(f"{len(lines)} repeats: actual / forecast {ratios[0]:.3f} to {ratios[-1]:.3f}, median "
          f"{ratios[len(ratios) // 2]:.3f}; error: median {errors[len(errors) // 2]:.1%}, most "
          f"{errors[-1]:.1%}; seconds a step alone {min(alone):.3f} to {max(alone):.3f}; "
          f"calibration took {min(took):.1f} to {max(took):.1f} s")  # fmt: skip


def read(results: str) -> list[dict[str, float]]:
    if not os.path.exists(results):
        return []
    with open(results, encoding="utf-8") as source:
        return [json.loads(line) for line in source]


if __name__ == "__main__":
    main()
