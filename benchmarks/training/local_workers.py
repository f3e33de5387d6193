"""Workers of a training on this machine, each a process that prints a line of JSON."""

import json
import os
import socket
import subprocess
import sys


def run_workers(script: str, arguments: list[str], workers: int) -> list[dict]:
    """Start a script as each of some workers on loopback; return what each has printed last.

    Args:
        script: A Python file.
        arguments: Of its command line.
        workers: How many; TF_CONFIG tells each of the others.
    """
    sockets = [socket.socket() for _ in range(workers)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]}
    for s in sockets:
        s.close()
    processes = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TF_CONFIG": json.dumps(
                {"cluster": cluster, "task": {"type": "worker", "index": index}})},
            stdout=subprocess.PIPE, text=True,
        )
        for index in range(workers)
    ]  # fmt: skip
    return [json.loads(p.communicate()[0].splitlines()[-1]) for p in processes]
