"""Beam's own job service and pool of workers, each a process of its own, as an engine has them."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = str(pathlib.Path(__file__).parents[2])
_PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])


@contextlib.contextmanager
def job_service(directory):
    """Run the job service in Python, whose protocol is any engine's; give its host:port."""
    port_file = directory / "port"
    arguments = ["portability.local_job_service_main", f"--port_file={port_file}"]
    with _running(directory, *arguments):
        wait_until(lambda: port_file.exists() and port_file.read_text())
        yield f"localhost:{port_file.read_text()}"


@contextlib.contextmanager
def worker_pool(directory, *arguments):
    """Run a pool whose workers have this checkout and run in a directory; give its host:port."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with _running(directory, "worker.worker_pool_main", f"--service_port={port}", *arguments):
        wait_until(lambda: _listens(port))
        yield f"localhost:{port}"


def wait_until(condition):
    """Wait until something holds, for two minutes at most."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def _running(directory, module, *arguments):
    with open(directory / f"{module}.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"apache_beam.runners.{module}", *arguments],
            env={**os.environ, "PATH": _PATH, "PYTHONPATH": ROOT},
            cwd=directory, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0
