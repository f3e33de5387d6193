"""Latency of a lone request, the load that a server sustains, and what it does at twice that.

python benchmarks/serving/load.py MODEL_DIR [SIGNATURE]

The server is a process of its own, as is this tester. A rate is sustained if nothing is shed or
fails and the 99th percentile is below LIMIT_MS.
"""

import json
import re
import subprocess
import sys

from serving.loadtest import DEFAULT_TEXT, LoadConfig, Objectives, run_load, summarize

LIMIT_MS = 250.0
SECONDS = 8.0
RATES = (20, 40, 60, 80, 100, 120, 150, 180, 220, 270, 330, 400)
SHOWN = ("requests", "answered", "shed", "failed", "errors", "answered_per_second", "latency_ms",
         "send_delay_p99_ms")  # fmt: skip


def main() -> None:
    model_dir, signature = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "score"
    server = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "serve", model_dir, "--rest-port", "0",
         "--grpc-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = re.match(r"REST: (http://[^/]+)/", line)[1]
        measure(url, signature, "warm up", 5.0, 2.0)
        measure(url, signature, "alone", 5.0, 15.0)
        sustained = 10
        for rate in RATES:
            found = measure(url, signature, "sweep", float(rate), SECONDS)
            p99 = found["latency_ms"]["p99"]
            if found["shed"] or found["failed"] or p99 is None or p99 > LIMIT_MS:
                break
            sustained = rate
        measure(url, signature, f"twice the sustained {sustained} a second", 2.0 * sustained, 15.0)
    finally:
        server.terminate()
        server.wait()


def measure(url: str, signature: str, name: str, rate: float, seconds: float) -> dict:
    config = LoadConfig(url, "default", signature, (DEFAULT_TEXT,), {}, rate, seconds, 0)
    summary = summarize(run_load(config), Objectives()).to_json()
    print(json.dumps({"what": name, "rate": rate, **{k: summary[k] for k in SHOWN}}), flush=True)
    return summary


main()
