"""The gateway as a process of its own, in front of a server of TensorFlow Serving's gRPC API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from serving.gateway.api import make_gateway_app
from serving.gateway.api_keys import ApiKeys
from serving.gateway.endpoint import Gateway
from serving.gateway.remote import GrpcModel, RemoteBackend
from serving.server.admission import Admission
from serving.server.config import ServerConfig
from serving.server.http_server import Ports, listen, serve_http
from serving.server.metrics import ServerMetrics
from serving.server.service import RequestLog

_LOG = logging.getLogger("tokenmill.serve")


async def serve_gateway(
    address: str,
    config: ServerConfig,
    started: Callable[[Ports], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Serve the OpenAI-compatible API until SIGTERM, SIGINT or `stop`.

    It keeps nothing but the texts that are being continued, so any number of gateways may stand
    before one server; it starts, too, while that is not there: /readyz tells.

    Args:
        address: HOST:PORT of the server.
        config: Options; `model_dir` is the directory that the server loads from, or a copy with
            each version's `saved_model.pb` and `assets.extra`. `rest_port` is the gateway's port.
        started: Called with the port once it listens.
        stop: Ends the gateway when it is set; None where only signals do.

    Raises:
        TokenmillError: The port is in use, or the keys cannot be read.
    """
    metrics = ServerMetrics()
    keys = None if config.api_keys is None else ApiKeys(config.api_keys)
    model = GrpcModel(address, config.model_name, config.deadline_seconds)
    try:
        backend = RemoteBackend(model, config, metrics)
        gateway = Gateway(backend, config, metrics, RequestLog(config, metrics))
        app = make_gateway_app(gateway, Admission(config, metrics, keys))
        with contextlib.closing(listen(config.host, config.rest_port, "--port")) as listener:
            port = listener.getsockname()[1]

            def on_started() -> None:
                _LOG.info("listening", extra={"host": config.host, "port": port})
                started(Ports(port))

            await serve_http(app, config, listener, on_started, stop)
    finally:
        model.close()
        _LOG.info("stopped")
