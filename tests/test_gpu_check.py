"""tools/gpu_check.sh on a CPU, and what it reads off a compiled program."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

PROGRAM = """HloModule step, is_scheduled=true

%inside (a: f32[8,128,256]) -> f32[8,128,256] {
  %a = f32[8,128,256]{2,1,0} parameter(0)
  %b = f32[4,2,128,256]{3,2,1,0} bitcast(%a)
  ROOT %c = f32[8,128,256]{2,1,0} exponential(%a)
}

ENTRY %main (q: bf16[8,128,64], k: bf16[8,256,64]) -> bf16[8,128,64] {
  %q = bf16[8,128,64]{2,1,0} parameter(0)
  %k = bf16[8,256,64]{2,1,0} parameter(1)
  %both = (bf16[8,128,256]{2,1,0}, s8[4194304]{0}) custom-call(%q, %k), \
custom_call_target="__cublas$lt$matmul"
  %scores = bf16[8,128,256]{2,1,0} get-tuple-element(%both), index=0
  %weights = f32[8,128,256]{2,1,0} fusion(%scores), kind=kLoop, calls=%inside
  %wide = bf16[4,2,128,256]{3,2,1,0} convert(%weights)
  %one = bf16[2,128,256]{2,1,0} slice(%wide)
  ROOT %out = bf16[8,128,64]{2,1,0} dot(%wide, %k)
}
"""


def load(name):
    """A module of benchmarks/gpu, which is no package."""
    path = ROOT / "benchmarks" / "gpu" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_in_memory_are_counted_and_those_inside_a_fusion_are_not():
    found = load("optimized_hlo").describe(PROGRAM, rows=4, heads=2, length=256)
    size = 8 * 128 * 256
    assert found["scores"]["shapes"] == {
        "f32[8,128,256]": 1,
        "bf16[8,128,256]": 1,
        "bf16[4,2,128,256]": 1,
    }
    assert found["scores"]["written"] == 3
    assert found["scores"]["written_bytes"] == size * (4 + 2 + 2)
    assert found["scores"]["largest_bytes"] == size * 4
    assert found["custom_calls"] == {"__cublas$lt$matmul": 1}
    assert (found["fusions"], found["conditionals"]) == (1, 0)


def test_alive_at_peak_ends_a_tensor_at_its_last_use():
    most, _ = load("memory_at_peak").alive_at_peak(PROGRAM)
    size = 8 * 128 * 256
    # While the fusion runs: its result, and the library call's result and scratch.
    assert most == size * (4 + 2) + 4194304


@pytest.mark.slow
def test_gpu_check_measures_every_case_on_a_cpu():
    command = ["sh", str(ROOT / "tools" / "gpu_check.sh"), "--dry-run", "--seconds", "580"]
    environment = {"PATH": "/usr/bin:/bin", "TOKENMILL_PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    cases = report["cases"]
    assert all(case["losses"][-1] < case["losses"][0] for case in cases.values())
    assert report["differences"]["mirrored_from_default_nats"] < 1e-4
    assert 0 < report["differences"]["mixed_bfloat16_from_float32_nats"] < 0.05
    assert cases["attention, 512 tokens"]["optimized_hlo"]["scores"]["written"] > 0
