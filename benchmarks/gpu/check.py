"""Check the Trainer on one GPU, TensorFlow's own, and print one JSON; tools/gpu_check.sh calls it.

Each case runs in a process of its own, so that its peak of memory and its compiler are its own:
the strategies default and mirrored, mixed_bfloat16 beside float32, XLA on and off, three batch
sizes of GPT-2 small beside the ledger's forecast of memory and tokens per second, and rows of 4,096
tokens, whose scores are looked for in the compiled program, with XLA's default flags and with its
cuDNN attention asked for. PyTorch compiles beside it, if an interpreter is named that has it, and
measures between the cases. A case for which no time is left, or that fails, is in the JSON with the
reason, and the exit code is 1; not that of the flag, which newer versions of XLA need not know.
"""

import argparse
import fcntl
import inspect
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

HERE = pathlib.Path(__file__).parent
_FIRST_STEPS = 3  # not timed
# Asks XLA to find attention and give it to cuDNN. An XLA that does not know the flag ends at once.
_FUSED_ATTENTION = "--xla_gpu_enable_cudnn_fmha=true"


def measure(options: argparse.Namespace) -> dict:
    """Train one case with TensorFlow and return what was measured."""
    import optimized_hlo
    import tensorflow as tf
    import trainer as trainers

    from components.train.distributed.strategy import make_strategy
    from tokenmill.cost.utilization import utilization_range

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus and not options.dry_run:
        sys.exit("TensorFlow sees no GPU: expected one; install requirements-gpu.lock's packages")
    shape = trainers.preset_shape(options.length, options.small)
    trainer = trainers.make_trainer(
        shape,
        options.precision,
        options.rows,
        strategy=make_strategy(options.strategy),
        jit_compile=not options.no_xla,
    )
    started = time.perf_counter()
    losses = trainers.losses(trainer, 1)
    first_step_seconds = time.perf_counter() - started
    seconds = []
    for _ in range(options.steps - 1):
        started = time.perf_counter()
        losses += trainers.losses(trainer, 1)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[_FIRST_STEPS - 1 :])
    forecast = trainers.forecast(shape, options.precision, options.rows, options.chip)
    rate = options.rows * options.length / median
    result = {
        "device": tf.config.experimental.get_device_details(gpus[0]) if gpus else "CPU",
        "tensorflow": tf.__version__,
        "step_ms": 1e3 * median,
        "first_step_seconds": first_step_seconds,
        "tokens_per_second": rate,
        "losses": losses,
        "forecast_memory_bytes": forecast["memory_bytes"]["total"],
        "peak_memory_bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"]
        if gpus
        else None,
    }
    peak = forecast["peak_flops_per_second"]
    if peak is not None:
        from data.catalog.chips import find_chip

        usual = utilization_range(find_chip(options.chip), shape.params_total)
        of_peak = peak / forecast["flops_per_token"]
        result |= {
            "mfu": rate / of_peak,
            "forecast_mfu": {"low": usual.low, "likely": usual.median, "high": usual.high},
            "forecast_tokens_per_second": usual.median * of_peak,
        }
    if options.scores:
        of_step = inspect.getclosurevars(trainer.step.python_function).nonlocals
        accumulate = inspect.getclosurevars(of_step["compute"]).nonlocals["accumulate"]
        ir = accumulate.experimental_get_compiler_ir(trainer.batch, tf.constant(0))
        text = ir(stage="optimized_hlo")
        result["optimized_hlo"] = optimized_hlo.describe(
            text, options.rows, shape.heads, shape.sequence_length
        )
    return result


def cases(dry_run: bool) -> dict[str, dict]:
    """Return each case's options and environment by name, the most wanted first."""
    batches, length, long_rows, long = ([8, 32, 64], 1024, 4, 4096)
    if dry_run:
        batches, length, long_rows, long = ([2, 4, 8], 256, 1, 512)
    found: dict[str, dict] = {
        "default": {"rows": batches[0], "precision": "float32", "steps": 10},
        "mirrored": {
            "rows": batches[0],
            "precision": "float32",
            "steps": 10,
            "strategy": "mirrored",
        },
    }
    for rows in batches:
        found[f"mixed_bfloat16, {rows} rows"] = {"rows": rows, "steps": 20}
    found[f"mixed_bfloat16, {batches[0]} rows, no XLA"] = {
        "rows": batches[0],
        "steps": 20,
        "no_xla": True,
    }
    attention = {"rows": long_rows, "steps": 10, "scores": True}
    found[f"attention, {long} tokens"] = {**attention, "length": long}
    found[f"attention, {long} tokens, {_FUSED_ATTENTION}"] = {
        **attention,
        "length": long,
        "flags": _FUSED_ATTENTION,
    }
    return {name: {"length": length, **case} for name, case in found.items()}


def run_case(case: dict, options: argparse.Namespace, seconds: float) -> dict:
    """Measure a case in a process of its own; return the result, or the error's last lines."""
    command = [sys.executable, __file__, "--case", "--chip", options.chip]
    command += ["--dry-run", "--small"] if options.dry_run else []
    for name, value in case.items():
        if name != "flags":
            flag = f"--{name.replace('_', '-')}"
            command += [flag] if value is True else [flag, str(value)]
    environment = dict(os.environ)
    if "flags" in case:
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {case['flags']}".strip()
    return _result_of(command, environment, seconds)


def start_peer(options: argparse.Namespace, lock: str, output: Any) -> subprocess.Popen:
    """Start PyTorch, compiled, at the same batch sizes; it measures while it has the lock."""
    shapes = sorted({(c["rows"], c["length"]) for c in cases(options.dry_run).values()})
    command = [options.torch_python, str(HERE / "peer_torch.py"), "--modes", "compiled"]
    command += ["--lock", lock]
    if options.dry_run:
        shapes = shapes[:1]
        command += ["--device", "cpu", "--steps", "5", "--layers", "2"]
        command += ["--width", "128", "--vocab", "1024"]
    command += ["--batches", *(f"{rows}x{length}" for rows, length in shapes)]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)


def end_peer(process: subprocess.Popen, output: Any, seconds: float) -> list[dict]:
    """Wait for PyTorch as long as there is time; return what it measured, and how it failed."""
    try:
        process.wait(seconds)
        error = f"exit code {process.returncode}" if process.returncode else None
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        error = "no time was left; give --seconds more"
    output.seek(0)
    text = output.read()
    found = _results(text)
    if error:
        found.append({"error": f"{error}: {text[-600:]}"})
    return found


def _result_of(command: list[str], environment: dict[str, str], seconds: float) -> dict:
    try:
        done = subprocess.run(
            command, env=environment, timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds:.0f} s; give --seconds more"}
    found = _results(done.stdout)
    if done.returncode or not found:
        said = " | ".join(done.stderr.strip().splitlines()[-3:])
        return {"error": f"exit code {done.returncode}: {said[-600:]}"}
    return found[0]


def _results(text: str) -> list[dict]:
    return [json.loads(line[7:]) for line in text.splitlines() if line.startswith("RESULT ")]


def compare(results: dict[str, dict]) -> dict:
    """Return the largest differences of loss between strategies, and between precisions."""
    losses = {name: r.get("losses") for name, r in results.items()}
    narrow = next(name for name in losses if name.startswith("mixed_bfloat16"))

    def difference(a: str, b: str) -> float | None:
        pairs = zip(losses.get(a) or (), losses.get(b) or (), strict=False)
        return max((abs(x - y) for x, y in pairs), default=None)

    return {
        "mirrored_from_default_nats": difference("mirrored", "default"),
        "mixed_bfloat16_from_float32_nats": difference(narrow, "default"),
    }


def main() -> None:
    """Run all cases within the time, or one of them, and print one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="two narrow layers, on a CPU")
    parser.add_argument("--chip", default="h200", help="the GPU's name in data/catalog")
    parser.add_argument("--seconds", type=float, default=520, help="for everything")
    parser.add_argument("--torch-python", help="an interpreter that has PyTorch")
    parser.add_argument("--case", action="store_true", help="measure only what these name:")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--steps", type=int, default=20)
    for flag in ("small", "no-xla", "scores"):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args()
    if options.case:
        print("RESULT", json.dumps(measure(options)), flush=True)
        return
    started = time.monotonic()

    def left() -> float:
        return options.seconds - (time.monotonic() - started)

    results: dict[str, dict] = {}
    peer: list[dict] = [{"error": "not run: give --torch-python"}]
    with tempfile.NamedTemporaryFile() as lock, tempfile.TemporaryFile("w+") as said:
        process = start_peer(options, lock.name, said) if options.torch_python else None
        for name, case in cases(options.dry_run).items():
            if left() < 20:
                results[name] = {"error": "no time was left; give --seconds more"}
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
            results[name] = {**case, **run_case(case, options, max(1.0, left()))}
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(0.5)  # PyTorch's turn, if it waits
        if process is not None:
            print("PyTorch ...", file=sys.stderr, flush=True)
            peer = end_peer(process, said, max(1.0, left()))
    report = {
        "dry_run": options.dry_run,
        "chip": options.chip,
        "cases": results,
        "differences": compare(results),
        "pytorch": peer,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(report, indent=1))
    sys.exit(any("error" in r for r in results.values() if "flags" not in r))


if __name__ == "__main__":
    main()
