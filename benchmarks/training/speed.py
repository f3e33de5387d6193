"""Tokens per second of the same decoder in tokenmill and in PyTorch, in interleaved rounds.

    uv venv --python 3.11 PEER && uv pip install --python PEER/bin/python torch==2.13.0
    PYTHONPATH=. .venv/bin/python benchmarks/training/speed.py PEER/bin/python ["OTHER"]

OTHER is how to start the other stack's Python (benchmarks/stacks/run.sh), a peer more.

Every peer is a process that has compiled and waits; a round runs each once. Transparent huge pages
are a setting of glibc's allocator, given to both.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys

ROUNDS = 4
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def main() -> None:
    """Prints the median of each peer and the ratio to the fastest PyTorch."""
    here, peer = os.path.dirname(os.path.abspath(__file__)), sys.argv[1]
    ours = [sys.executable, os.path.join(here, "speed_ours.py")]
    other = [*shlex.split(sys.argv[2]), ours[1]] if len(sys.argv) > 2 else None
    torch = [peer, os.path.join(here, "speed_torch.py")]
    peers = {
        "tokenmill": (ours, {}),
        "tokenmill, huge pages": (ours, HUGE_PAGES),
        **({"tokenmill, other stack": (other, {})} if other else {}),
        "torch eager": (torch, {}),
        "torch.compile": ([*torch, "--compile"], {}),
        "torch.compile, huge pages": ([*torch, "--compile"], HUGE_PAGES),
    }
    processes = {
        name: subprocess.Popen(
            command,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, (command, environment) in peers.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for measured in (False, *[True] * ROUNDS):  # the first round waits for all to have compiled
        for name, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            line = next(x for x in process.stdout if x.startswith("RESULT"))
            if measured:
                rates[name].append(json.loads(line.removeprefix("RESULT"))["tokens_per_second"])
    for process in processes.values():
        process.stdin.close()
        process.wait()
    best = max(statistics.median(r) for name, r in rates.items() if name.startswith("torch"))
    for name, each in rates.items():
        median = statistics.median(each)
        shown = ", ".join(f"{rate:,.0f}" for rate in each)
        print(f"{name:28s} {median:8,.0f} tokens/s  x{median / best:.2f}   ({shown})")


if __name__ == "__main__":
    main()
