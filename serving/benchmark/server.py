"""The model that is scored, behind the gateway, on a free port of this machine."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from serving.app import ServerThread
from serving.benchmark.harness import Served
from serving.server.config import ServerConfig
from tokenmill.contracts.served_model import read_served_model

_NAME = "model"
# What the harness has under way at a time may wait for each other: no deadline ends a benchmark.
_DEADLINE_SECONDS = 600.0
_MAX_QUEUED_ROWS = 256
_MAX_REQUEST_BYTES = 16 << 20


@contextlib.contextmanager
def serve_for_harness(saved_model: str) -> Iterator[Served]:
    """Serve one SavedModel by the OpenAI-compatible API until the context ends.

    Args:
        saved_model: Its directory.

    Raises:
        TokenmillError: It cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="tokenmill-benchmark-") as base:
        # This version alone, whatever is pushed beside it meanwhile.
        os.symlink(os.path.abspath(saved_model), os.path.join(base, "1"))
        config = ServerConfig(
            base,
            _NAME,
            rest_port=0,
            grpc_port=0,
            openai=True,
            deadline_seconds=_DEADLINE_SECONDS,
            max_queued_rows=_MAX_QUEUED_ROWS,
            max_request_bytes=_MAX_REQUEST_BYTES,
        )
        with ServerThread(config) as thread:
            yield Served(
                url=f"http://127.0.0.1:{thread.ports.rest}",
                model=_NAME,
                context_length=read_served_model(saved_model).model_shape.sequence_length,
            )
