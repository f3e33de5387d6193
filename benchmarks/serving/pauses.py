"""What a pause between two requests costs: the processor, the model, the server, or the network?

    PYTHONPATH=. .venv/bin/python benchmarks/serving/pauses.py MODEL_DIR

Each row is the median of `score` on a text of some 64 tokens after a pause, in milliseconds: the
pause is slept (the processor may halt) or spun (it may not). `processor` is a fixed loop of Python
that needs no memory and no other thread, `memory` a sum over 16 MB.
"""

import http.client
import json
import statistics
import sys
import time

import numpy as np

PAUSES_MS = (0, 5, 20, 100)
REPEATS = 40


def spin(seconds):
    """Wait without letting the processor halt."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def main(model_dir):
    """Print a table."""
    import tensorflow as tf

    from serving.app import ServerThread
    from serving.loadtest import DEFAULT_TEXT
    from serving.saved_model import limit_threads, newest_version
    from serving.server.config import ServerConfig
    from serving.server.model import LoadedModel

    limit_threads(model_dir, None)
    model = LoadedModel(newest_version(model_dir), 1)
    inputs, _ = model.bind("score", {"text": np.array([DEFAULT_TEXT.encode()], object)})
    constant = {"text": tf.constant([DEFAULT_TEXT])}
    score = model.functions["score"]
    memory = np.ones(2 << 20)
    body = json.dumps({"signature_name": "score", "instances": [DEFAULT_TEXT]})

    def loop():
        total = 0
        for i in range(20000):
            total += i
        return total

    config = ServerConfig(model_dir, rest_port=0, grpc_port=0)
    with ServerThread(config) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.ports.rest)

        def ask():
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/models/default:predict", body, headers)
            answer = connection.getresponse().read()
            assert b"predictions" in answer, answer

        work = {
            "processor": loop,
            "memory": memory.sum,
            "signature": lambda: score(**constant),
            "model.run": lambda: model.run("score", inputs),
            "server": ask,
        }
        print(
            f"{'ms':10s} {'pause':>6s} {'back to back':>13s}", *[f"{p:>8d}" for p in PAUSES_MS[1:]]
        )
        for name, function in work.items():
            for _ in range(20):
                function()
            for kind, wait in (("slept", time.sleep), ("spun", spin)):
                medians = []
                for pause in PAUSES_MS:
                    taken = []
                    for _ in range(REPEATS):
                        if pause:
                            wait(pause / 1000)
                        begun = time.perf_counter()
                        function()
                        taken.append(time.perf_counter() - begun)
                    medians.append(1000 * statistics.median(taken))
                shown = [f"{value:8.2f}" for value in medians[1:]]
                print(f"{name:10s} {kind:>6s} {medians[0]:13.2f}", *shown, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
