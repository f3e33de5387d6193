"""Run lowered programs of the Trainer's step with JAX's XLA client; print one JSON line.

The host reads after each step whether all was finite, and only then has the update done, as the
Trainer's step does. Needs jax and numpy only. jaxlib's client and MLIR interfaces are private:
this ran with 0.11.2.
"""

import argparse
import collections
import functools
import gzip
import io
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

# The peak that is reported shall be that of the steps, not a share of the card taken ahead.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import inputs
import jax
import numpy as np
import optimized_hlo
from jax._src.interpreters.mlir import make_ir_context
from jaxlib import _jax
from jaxlib.mlir import ir

_FIRST_STEPS = 3  # not timed


def stablehlo(proto: bytes, updates: dict[int, int]) -> bytes:
    """Return a program that the plugin of a GPU takes: StableHLO alone.

    TensorFlow copies what it assigns to a variable; that is no operation of StableHLO, and the
    compiler makes the copies that it needs. A variable's new value takes the place of the old one,
    as in TensorFlow.

    Args:
        proto: A serialized HLO module.
        updates: Parameter whose memory each output takes.
    """
    with make_ir_context():
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(proto))
        del module.operation.attributes["mhlo.input_output_alias"]
        for function in module.body.operations:
            if function.name.value != "main":
                continue
            attributes = [dict(_items(of)) for of in function.arg_attrs]
            for out, of in updates.items():
                attributes[of]["tf.aliasing_output"] = ir.IntegerAttr.get(
                    ir.IntegerType.get_signless(32), out
                )
            function.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(of) for of in attributes])
            for operation in list(function.regions[0].blocks[0].operations):
                if operation.operation.name == "mhlo.copy":
                    operation.results[0].replace_all_uses_with(operation.operands[0])
                    operation.operation.erase()
        file = io.BytesIO()
        module.operation.write_bytecode(file)
        return file.getvalue()


def _items(attributes) -> list:
    return [(name, attributes[name]) for name in attributes]


class Program:
    """One compiled program and its place in the step.

    Args:
        folder: Of the case.
        name: Of the program.
        about: What case.json says of it.
    """

    def __init__(self, folder: pathlib.Path, name: str, about: dict):
        proto = gzip.decompress((folder / f"{name}.hlo.gz").read_bytes())
        updates = {int(out): int(of) for out, of in about["updates"].items()}
        devices = _jax.DeviceList(tuple(jax.local_devices()[:1]))
        started = time.perf_counter()
        self._executable = jax.local_devices()[0].client.compile_and_load(
            stablehlo(proto, updates), devices, _jax.CompileOptions()
        )
        self.compile_seconds = time.perf_counter() - started
        self.variables, self.updates = about["variables"], updates

    def run(self, arguments: list, state: dict) -> list:
        """Run it on arguments and the variables; return its outputs and store what it updates."""
        given = len(arguments)
        values = [*arguments, *(state[path] for path in self.variables)]
        results = self._executable.execute_sharded(values)
        outputs = [arrays[0] for arrays in results.disassemble_into_single_device_arrays()]
        for out, of in self.updates.items():
            state[self.variables[of - given]] = outputs[out]
        return outputs

    @functools.cached_property
    def text(self) -> str:
        """Optimized HLO."""
        return self._executable.hlo_modules()[0].to_string()

    def memory(self) -> dict[str, int]:
        """Return what the compiler's buffer assignment needs, bytes."""
        stats = self._executable.get_compiled_memory_stats()
        parts = ("argument", "output", "alias", "temp")
        return {part: getattr(stats, f"{part}_size_in_bytes") for part in parts}


def first_state(case: dict) -> dict:
    """Return all variables by path, on the device."""
    state = {}
    for v in case["state"]:
        state[v["path"]] = np.full(v["shape"], v["value"], v["dtype"])
    for v in case["weights"]:
        state[v["path"]] = inputs.weight(v["index"], v["shape"], v["mean"], v["stddev"])
    return {path: jax.device_put(value, jax.local_devices()[0]) for path, value in state.items()}


def kernels(step, folder: str) -> list[dict]:
    """Profile three steps and return the operations that took longest on the device."""
    with jax.profiler.trace(folder):
        for _ in range(3):
            step()
    path = next(pathlib.Path(folder).rglob("*.xplane.pb"))
    total: collections.Counter = collections.Counter()
    count: collections.Counter = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                total[event.name] += event.duration_ns / 3e6
                count[event.name] += 1
    return [
        {"kernel": name[:120], "ms_per_step": round(ms, 3), "calls_per_step": count[name] / 3}
        for name, ms in total.most_common(25)
    ] + [{"kernel": "all", "ms_per_step": round(total.total(), 3)}]


def main() -> None:
    """Measure the case of a folder that lower.py wrote."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=30, help="steps, the first three not timed")
    parser.add_argument("--profile", action="store_true", help="name the kernels that take longest")
    parser.add_argument("--text", type=pathlib.Path, help="folder for the optimized HLO")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # the optimizer counts its steps in int64
    case = json.loads((options.case / "case.json").read_text(encoding="utf-8"))
    device = jax.local_devices()[0]
    programs = {n: Program(options.case, n, about) for n, about in case["programs"].items()}
    after_compile = device.memory_stats() or {}
    rows, length = case["rows"], case["length"]
    state = first_state(case)
    batch = [jax.device_put(x, device) for x in inputs.batch(rows, length, case["vocab_size"])]
    batch.append(jax.device_put(np.int32(0), device))

    def step() -> float:
        sums = programs["accumulate"].run(batch, state)
        nll, weight, *gradients, _, finite = programs["mean_gradients"].run(sums, state)
        del sums
        if not bool(finite):
            sys.exit(f"{options.case}: a step is not finite; expected a finite loss and gradient")
        programs["apply"].run(gradients, state)
        return float(nll) / float(weight)

    losses, seconds = [], []
    for _ in range(options.steps):
        started = time.perf_counter()
        losses.append(step())
        # The update may still run: the next step would wait for it and pay.
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - started)
    stats = device.memory_stats() or {}
    median = statistics.median(seconds[_FIRST_STEPS:])
    forecast = case["forecast"]
    rate = rows * length / median
    result = {
        "case": options.case.name,
        **{k: case[k] for k in ("rows", "length", "precision", "tf32", "parameters")},
        "device": device.device_kind,
        "jax": jax.__version__,
        "step_ms": 1e3 * median,
        "step_ms_least_most": [1e3 * f(seconds[_FIRST_STEPS:]) for f in (min, max)],
        "tokens_per_second": rate,
        "mfu": rate * forecast["flops_per_token"] / forecast["peak_flops_per_second"],
        "mfu_of_16_bit_peak": rate
        * forecast["flops_per_token"]
        / forecast["peak_16_bit_flops_per_second"],
        "computed_mfu": rate
        * forecast["computed_flops_per_token"]
        / forecast["peak_flops_per_second"],
        "losses": losses,
        "compile_seconds": {n: round(p.compile_seconds, 1) for n, p in programs.items()},
        "forecast_memory_bytes": forecast["memory_bytes"]["total"],
        "peak_memory_bytes": stats.get("peak_bytes_in_use"),
        "peak_memory_bytes_after_compile": after_compile.get("peak_bytes_in_use"),
    }
    print("MEASURED", json.dumps(result), flush=True)  # should what follows fail
    text = programs["accumulate"].text
    result |= {
        "compiled_memory_bytes": {n: p.memory() for n, p in programs.items()},
        "optimized_hlo": optimized_hlo.describe(text, rows, case["heads"], length),
    }
    expected = case.get("reference_losses")
    if expected:
        result["reference_losses"] = expected
        pairs = zip(losses, expected, strict=False)
        result["largest_difference_from_cpu"] = max(abs(a - b) for a, b in pairs)
    if options.text:
        options.text.mkdir(parents=True, exist_ok=True)
        path = options.text / f"{options.case.name}.hlo.gz"
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    if options.profile:
        with tempfile.TemporaryDirectory() as folder:
            result["kernels"] = kernels(step, folder)
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
