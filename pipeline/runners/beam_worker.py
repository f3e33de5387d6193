"""`tokenmill-beam-worker`: a Python worker as Beam's pool of workers starts it.

    python -m apache_beam.runners.worker.worker_pool_main --service_port=50000 \
      --container_executable="$(command -v tokenmill-beam-worker)"

Beam's own command for a worker leaves out WORKER_ID, without which Prism refuses requests for side
inputs. And the pool knows workers by ids that are unique for one machine of an engine only: where
two share a pool, it would stop the one's worker for the other. So what the pool has started ends at
once here; the worker is its child, in a session of its own, and ends when its engine hangs up.
"""

import argparse
import os
import sys


def main() -> None:
    """Run a worker until its engine hangs up."""
    parser = argparse.ArgumentParser(prog="tokenmill-beam-worker")
    parser.add_argument("--id", required=True)
    parser.add_argument("--control_endpoint", required=True)
    given, _ = parser.parse_known_args()  # of logging, provision and artifacts nothing is needed
    if os.fork():  # before any library has threads
        return
    os.setsid()
    os.dup2(2, 1)  # the pool reads nothing of what it has started, which would wait for it
    os.environ["WORKER_ID"] = given.id
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    code = 1
    try:
        SdkHarness(given.control_endpoint, worker_id=given.id).run()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)  # its threads wait for the engine, which is gone


if __name__ == "__main__":
    main()
