"""Peak memory of each of several workers beside the ledger's forecast, with and without ZeRO.

    PYTHONPATH=$PWD .venv/bin/python benchmarks/training/sharded_memory.py [WORKERS [STEPS]]

Each worker is a process of its own on this machine; its peak is that of the kernel (VmHWM), and the
base what it holds when TensorFlow's workers have met and nothing of the model is there. Nothing is
saved while it trains: the chief's copy for a checkpoint would come on top.
"""

import json
import sys
import tempfile

from local_workers import run_workers
from resume_overhead import write_rows

from tokenmill.cost.devices import CPU_PARALLELISM
from tokenmill.cost.memory import estimate_memory
from tokenmill.cost.sharding import shard_memory
from tokenmill.model.shape import ModelShape

BATCH = 16
SHAPE = ModelShape(
    layers=4, d_model=512, heads=8, d_ff=2048, vocab_size=4096, sequence_length=256,
    positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=False,
)  # fmt: skip


def work(rows: str, zero: int, steps: int) -> None:
    """Train as one worker; print the base, the peak and the hash of the weights."""
    from components.train.config import TrainConfig
    from components.train.distributed.cpu_parallelism import divide_cores
    from components.train.distributed.strategy import make_strategy
    from components.train.loop import Trainer
    from tokenmill.machine import peak_process_bytes, process_bytes
    from tokenmill.model.build import build_model
    from tokenmill.rows.mixture import StepPlan
    from tokenmill.rows.packed_split import PackedSplit

    divide_cores()
    strategy = make_strategy("multi_worker")
    base = process_bytes()
    config = TrainConfig(strategy="multi_worker", zero=zero, global_batch_size=BATCH)
    with strategy.scope():
        model = build_model(SHAPE, 1)
    train = PackedSplit(rows, "train")
    plan = StepPlan(rows=train.rows, global_batch_size=BATCH, steps=steps)
    trainer = Trainer(strategy, model, config, plan, 1)
    record = trainer.fit(train, PackedSplit(rows, "eval"))
    print(json.dumps({
        "base": base, "peak": peak_process_bytes(), "loss": record.loss_curve[-1][1],
        "handed": trainer.collectives.bytes_per_step,
    }))  # fmt: skip


def run(rows: str, zero: int, workers: int, steps: int) -> list[dict]:
    """Train with some workers; return what each has printed."""
    return run_workers(__file__, ["--work", rows, str(zero), str(steps)], workers)


def main() -> None:
    """Print a table in MiB."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    workers, steps = (int(word) for word in (sys.argv[1:] + ["2", "4"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as rows:
        write_rows(rows)
        print(f"{SHAPE.params_total:,} parameters, {workers} workers")
        whole = estimate_memory(
            SHAPE, batch_per_device=BATCH // workers, precision="float32", dropout=False,
            parallelism=CPU_PARALLELISM, on_cpu=True,
        )  # fmt: skip
        for zero in (0, 1):
            forecast = shard_memory(whole, "zero1" if zero else "data", workers, SHAPE.layers)
            for index, found in enumerate(run(rows, zero, workers, steps)):
                print(
                    f"zero {zero} worker {index}: forecast {forecast.total >> 20} MiB, peak "
                    f"{found['peak'] >> 20}, ratio {found['peak'] / forecast.total:.2f}; base "
                    f"{found['base'] >> 20}, above it {(found['peak'] - found['base']) >> 20}; "
                    f"handed {found['handed']}, loss {found['loss']:.7f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
