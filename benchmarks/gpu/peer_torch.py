"""The peer's decoder of benchmarks/training on a GPU: PyTorch eager and compiled, fused attention.

Prints a JSON line for each batch. With `--lock` it measures only while it holds the lock, so that
other measurements on the same card can wait; it compiles without it.
"""

import argparse
import contextlib
import fcntl
import importlib.util
import json
import pathlib
import statistics
import time

import torch
from torch import nn

_PEER = pathlib.Path(__file__).parents[1] / "training" / "speed_torch.py"
_FIRST_STEPS = 3  # not timed


def decoder(layers: int, width: int, length: int, vocab: int) -> nn.Module:
    """Return the decoder of speed_torch.py, which stands beside no package."""
    spec = importlib.util.spec_from_file_location("speed_torch", _PEER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Decoder(layers, width, length, vocab)


@contextlib.contextmanager
def alone(path: str | None):
    """Hold the lock file of the card's measurements, if there is one."""
    if path is None:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(options: argparse.Namespace, rows: int, length: int, compiled: bool) -> dict:
    """Train on random tokens; return tokens per second, the last loss and the peak of memory."""
    device = options.device
    torch.manual_seed(0)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch._dynamo.reset()
    model = decoder(options.layers, options.width, length, options.vocab).to(device)
    tokens = torch.randint(0, options.vocab, (rows, length + 1), device=device)
    ids, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    optimizer = torch.optim.AdamW(
        model.parameters(), 6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    forward = torch.compile(model, dynamic=False) if compiled else model
    narrow = options.precision == "mixed_bfloat16"

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            loss = forward(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()  # waits, as the Trainer's step does

    started = time.perf_counter()
    step()
    compile_seconds = time.perf_counter() - started
    if device == "cuda":
        torch.cuda.empty_cache()  # while it waits, others use the card
    with alone(options.lock):
        seconds = []
        for _ in range(options.steps):
            started = time.perf_counter()
            loss = step()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[_FIRST_STEPS:])
    return {
        "peer": "pytorch compiled" if compiled else "pytorch eager",
        "torch": torch.__version__,
        "rows": rows,
        "length": length,
        "precision": options.precision,
        "tf32": torch.get_float32_matmul_precision() != "highest",
        "step_ms": 1e3 * median,
        "step_ms_least_most": [1e3 * f(seconds[_FIRST_STEPS:]) for f in (min, max)],
        "tokens_per_second": rows * length / median,
        "loss": loss,
        "first_step_seconds": compile_seconds,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


def main() -> None:
    """Measure each batch, eager and compiled as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", nargs="+", default=["8x1024"], help="ROWSxLENGTH")
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"])
    parser.add_argument("--precision", default="mixed_bfloat16", help="or float32, with TF32")
    parser.add_argument("--device", default="cuda", help="or cpu, for a trial")
    parser.add_argument("--lock", help="file to lock while measuring")
    for name, default in (("layers", 12), ("width", 768), ("vocab", 50257), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    # TensorFlow multiplies float32 in TF32 where the card can; so does the peer.
    torch.set_float32_matmul_precision("high")
    for mode in options.modes:
        for batch in options.batches:
            rows, length = map(int, batch.split("x"))
            result = measure(options, rows, length, mode == "compiled")
            print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
