"""Load on a real server while versions are pushed, switched and rolled back.

python benchmarks/serving/swaps.py SAVED_MODEL [SWAPS]
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import time

from serving.client import Client
from serving.loadtest import DEFAULT_TEXT, LoadSettings, Objectives, run_load, summarise
from serving.rollout import Rollout, write_rollout
from serving.server.app import ServerThread
from serving.server.settings import ServerSettings

RATE_PER_SECOND = 10.0


def main() -> None:
    model, swaps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as base:

        def push(version: int) -> None:
            aside = os.path.join(base, ".pushing")
            shutil.copytree(model, aside)
            os.rename(aside, os.path.join(base, str(version)))

        push(1)
        settings = ServerSettings(
            base, rest_port=0, grpc_port=0, poll_seconds=0.1, max_queued_rows=1000
        )
        with ServerThread(settings) as server:
            url = f"http://127.0.0.1:{server.ports.rest}"
            client, stop, outcomes = Client(url), threading.Event(), []

            def load() -> None:
                seed = 0
                while not stop.is_set():
                    outcomes.extend(run_load(load_settings(url, seed)))
                    seed += 1

            thread = threading.Thread(target=load)
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
    summary = summarise(load_settings(url, 0), outcomes, Objectives(max_shed_rate=0.0))
    shown = ("requests", "answered", "shed", "failed", "errors", "latency_ms", "missed")
    result = {key: summary[key] for key in shown}
    print(json.dumps({**result, "swaps": swaps, "rollbacks": 1, "seconds": round(seconds, 1),
                      "versions_that_answered": len(summary["versions"])}))  # fmt: skip
    sys.exit(1 if summary["missed"] else 0)


def load_settings(url: str, seed: int) -> LoadSettings:
    return LoadSettings(url, "default", "score", (DEFAULT_TEXT,), {}, RATE_PER_SECOND, 5.0, seed)


def wait_for(client: Client, version: int) -> None:
    while True:
        served = [v["version"] for v in client.status() if v["state"] == "AVAILABLE"]
        if served == [version]:
            return
        time.sleep(0.1)


main()
