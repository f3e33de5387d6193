"""Load on a real server while versions are pushed, switched and rolled back.

python benchmarks/serving/swaps.py SAVED_MODEL [SWAPS]
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from serving.client import Client
from serving.loadtest import (
    DEFAULT_TEXT,
    LoadConfig,
    Objectives,
    Outcome,
    run_load,
    summarize,
)
from serving.rollout import Rollout, write_rollout

RATE_PER_SECOND = 5.0


def main() -> None:
    model, swaps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as base:

        def push(version: int) -> None:
            temporary = os.path.join(base, ".pushing")
            shutil.copytree(model, temporary)
            os.rename(temporary, os.path.join(base, str(version)))

        push(1)
        server = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "serve", base, "--rest-port", "0",
             "--grpc-port", "0", "--poll-seconds", "0.1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            url = re.match(r"REST: (http://[^/]+)/", server.stdout.readline())[1]
            client, stop, outcomes = Client(url), threading.Event(), []
            thread = threading.Thread(target=load, args=(url, stop, outcomes))
            thread.start()
            started = time.monotonic()
            for version in range(2, swaps + 2):
                push(version)
                wait_for(client, version)
            write_rollout(base, Rollout(swaps, None, 0.0, "s", "rolled_back"))
            wait_for(client, swaps)
            seconds = time.monotonic() - started
            stop.set()
            thread.join()
        finally:
            server.terminate()
            server.wait()
    summary = summarize(outcomes, Objectives(max_shed_rate=0.0)).to_json()
    shown = ("requests", "answered", "shed", "failed", "errors", "latency_ms", "missed")
    result = {key: summary[key] for key in shown}
    print(json.dumps({**result, "swaps": swaps, "rollbacks": 1, "seconds": round(seconds, 1),
                      "versions_that_answered": len(summary["versions"])}))  # fmt: skip
    sys.exit(1 if summary["missed"] else 0)


def load(url: str, stop: threading.Event, outcomes: list[Outcome]) -> None:
    seed = 0
    while not stop.is_set():
        outcomes.extend(run_load(load_config(url, seed)))
        seed += 1


def load_config(url: str, seed: int) -> LoadConfig:
    return LoadConfig(url, "default", "score", (DEFAULT_TEXT,), {}, RATE_PER_SECOND, 5.0, seed)


def wait_for(client: Client, version: int) -> None:
    while True:
        served = [v.version for v in client.status() if v.state == "AVAILABLE"]
        if served == [version]:
            return
        time.sleep(0.1)


main()
