"""Experts spread over workers beside all experts on each: time, memory and bytes of a step.

    PYTHONPATH=$PWD .venv/bin/python benchmarks/training/spread_experts.py [WORKERS [CASE ..]]

Each worker is a process of its own on this machine, and all train by the product's own loop with
train.zero = 1, without and with train.expert_parallel, and both without XLA. A worker's peak is
that of the kernel (VmHWM), the base what it holds when the workers have met and nothing of the
model is there; beside it is the ledger's forecast, which counts on XLA. Nothing is saved while they
train.
"""

import json
import sys
import tempfile

from local_workers import run_workers
from resume_overhead import LENGTH, VOCAB, write_rows

from tokenmill.cost.devices import CPU_PARALLELISM
from tokenmill.cost.memory import estimate_memory
from tokenmill.cost.sharding import Experts, shard_memory
from tokenmill.model.shape import ModelShape

STEPS = 6
# Experts, and rows of 256 tokens a step over all workers.
CASES = {"few": (8, 16), "many": (64, 16), "many-short": (64, 4)}
WAYS = {
    "all on each": {"zero": 1},
    "spread": {"zero": 1, "expert_parallel": True},
    "all, no XLA": {"zero": 1, "jit_compile": False},
    "spread, no XLA": {"zero": 1, "expert_parallel": True, "jit_compile": False},
}


def shape_of(experts: int) -> ModelShape:
    """Return a model of 4 layers whose experts have 262,144 weights each."""
    return ModelShape(
        layers=4, d_model=256, heads=4, d_ff=512, vocab_size=VOCAB, sequence_length=LENGTH,
        positions="rope", norm="layer", use_bias=False, mlp="gelu", tie_embeddings=True,
        experts=experts, experts_per_token=2,
    )  # fmt: skip


def work(rows: str, case: str, way: str) -> None:
    """Train as one worker; print what was measured."""
    from components.train.config import TrainConfig
    from components.train.distributed.cpu_parallelism import divide_cores
    from components.train.distributed.spread_experts import SpreadExperts
    from components.train.distributed.strategy import make_strategy
    from components.train.loop import Trainer
    from tokenmill.machine import peak_process_bytes, process_bytes
    from tokenmill.model.build import build_model
    from tokenmill.rows.mixture import StepPlan
    from tokenmill.rows.packed_split import PackedSplit

    divide_cores()
    strategy = make_strategy("multi_worker")
    base = process_bytes()
    experts, batch = CASES[case]
    config = TrainConfig(strategy="multi_worker", global_batch_size=batch, **WAYS[way])
    with strategy.scope():
        spread = None
        if config.expert_parallel:
            spread = SpreadExperts(strategy, experts, config.jit_compile)
        model = build_model(shape_of(experts), 1, spread=spread)
    train = PackedSplit(rows, "train")
    trainer = Trainer(strategy, model, config, StepPlan(train.rows, batch, STEPS), 1)
    record = trainer.fit(train, PackedSplit(rows, "eval"))
    print(json.dumps({
        "base": base,
        "peak": peak_process_bytes(),
        "losses": [loss for _, loss in record.loss_curve],
        "step_seconds": batch * LENGTH / record.tokens_per_second,
        "cpu_seconds": record.steady_cpu_seconds * batch * LENGTH / record.steady_slots,
        "handed": trainer.collectives.bytes_per_step,
    }))  # fmt: skip


def forecast_bytes(case: str, way: str, workers: int) -> int:
    """Return what the ledger expects one of some workers to hold at most."""
    experts, batch = CASES[case]
    shape = shape_of(experts)
    whole = estimate_memory(
        shape, batch_per_device=batch // workers, precision="float32", dropout=False,
        parallelism=CPU_PARALLELISM, on_cpu=True,
    )  # fmt: skip
    strategy = "expert" if "expert_parallel" in WAYS[way] else "zero1"
    return shard_memory(whole, strategy, workers, shape.layers, Experts.of(shape)).total


def run(rows: str, case: str, way: str, workers: int) -> list[dict]:
    """Train with some workers; return what each has printed."""
    return run_workers(__file__, ["--work", rows, case, way], workers)


def main() -> None:
    """Print a line for each case and way."""
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
        return
    workers = int((sys.argv[1:2] or ["2"])[0])
    with tempfile.TemporaryDirectory() as rows:
        write_rows(rows)
        for case in sys.argv[2:] or CASES:
            shape = shape_of(CASES[case][0])
            print(f"{case}: {shape.params_total:,} parameters, {shape.params_active:,} active")
            reference: list[float] = []
            for way in WAYS:
                found = run(rows, case, way, workers)
                losses = found[0]["losses"]
                reference = reference or losses
                apart = max(abs(a / b - 1) for a, b in zip(losses, reference, strict=True))
                above, peaks = (
                    " and ".join(f"{size >> 20}" for size in sizes)
                    for sizes in (
                        [each["peak"] - each["base"] for each in found],
                        [each["peak"] for each in found],
                    )
                )
                forecast = forecast_bytes(case, way, workers)
                print(
                    f"  {way:15} {found[0]['step_seconds'] * 1e3:7.0f} ms a step, CPU "
                    f"{found[0]['cpu_seconds'] * 1e3:.0f}; {above} MiB above the base, peak "
                    f"{peaks}, forecast {forecast >> 20}; handed "
                    f"{found[0]['handed']}; loss {losses[-1]:.6f}, at most {apart:.1e} apart",
                    flush=True,
                )


if __name__ == "__main__":
    main()
