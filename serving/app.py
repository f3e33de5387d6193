"""The server process: REST and gRPC on one event loop, until SIGTERM, SIGINT or a stop event."""

import asyncio
import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp

from serving.gateway.api import gateway_routes, is_gateway_path
from serving.gateway.api_keys import ApiKeys
from serving.gateway.endpoint import Gateway
from serving.gateway.errors import error_response
from serving.gateway.local import LocalBackend
from serving.server.config import ServerConfig
from serving.server.errors import RequestError
from serving.server.http_server import Ports, in_use, listen, serve_http
from serving.server.rest import make_app
from serving.server.rpc import start_grpc
from serving.server.service import Service
from tokenmill.errors import TokenmillError

_LOG = logging.getLogger("tokenmill.serve")
_STANDARD_FIELDS = set(vars(logging.makeLogRecord({})))
_NOT_LOGGED = _STANDARD_FIELDS | {"color_message"}  # uvicorn's, for terminals


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and the fields that were given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        fields = {k: v for k, v in vars(record).items() if k not in _NOT_LOGGED}
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as_json() -> None:
    """Send all logs to standard error as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("absl").setLevel(logging.ERROR)


async def serve(
    config: ServerConfig,
    started: Callable[[Ports], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; answer what was accepted before it returns.

    Args:
        config: Options of the server.
        started: Called with the ports once both listen and a version is ready.
        stop: Ends the server when it is set; None where only signals do.

    Raises:
        TokenmillError: There is no model, it cannot be loaded, or a port is in use.
    """
    keys = None if config.api_keys is None else ApiKeys(config.api_keys)
    service = Service(config, keys)
    app = _make_app(service)
    # The ports first: that one is in use should not take a model's load to find out.
    rest_socket = listen(config.host, config.rest_port)
    try:
        grpc_server, grpc_port = await start_grpc(service, config.host, config.grpc_port)
    except OSError:
        rest_socket.close()
        raise in_use(config.host, config.grpc_port, "--grpc-port") from None
    watch: asyncio.Future[None] | None = None
    try:
        await service.versions.refresh()
        if not service.versions.ready:
            raise _no_model(service)
        ports = Ports(rest_socket.getsockname()[1], grpc_port)

        def on_started() -> None:
            names = {"host": config.host, "rest": ports.rest, "grpc": ports.grpc}
            _LOG.info("listening", extra=names)
            started(ports)

        watch = asyncio.ensure_future(service.versions.watch())
        await serve_http(app, config, rest_socket, on_started, stop)
    finally:
        if watch is not None:
            watch.cancel()
        await grpc_server.stop(grace=config.deadline_seconds)
        await service.batcher.close()
        rest_socket.close()
        _LOG.info("stopped")


def _make_app(service: Service) -> ASGIApp:
    """Make the application of the APIs that the options ask for."""
    if not service.config.openai:
        return make_app(service)
    gateway = Gateway(LocalBackend(service), service.config, service.metrics, service.request_log)

    def refusal(path: str, error: RequestError) -> Response | None:
        return error_response(error) if is_gateway_path(path) else None

    return make_app(service, gateway_routes(gateway, alone=False), refusal)


def run_server(config: ServerConfig, started: Callable[[Ports], None]) -> None:
    """Serve in this process until SIGTERM or SIGINT."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(config, started))


def _no_model(service: Service) -> TokenmillError:
    failed = [f"{v}: {s.error}" for v, s in service.versions.status.items() if s.error]
    return TokenmillError(
        f"no version in {service.config.model_dir} can be loaded. {' '.join(failed)}".strip(),
        "" if failed else "Run `tokenmill run` first, or name another directory.",
    )


class ServerThread:
    """Server on a thread of this process, for tests and notebooks.

    Args:
        config: Options of the server; ports of 0 take free ones.
        run: What serves, as `serve` does.
    """

    def __init__(self, config: ServerConfig, run: Callable[..., Awaitable[None]] = serve):
        self._config, self._run_server = config, run
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.ports = Ports(0, 0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ServerThread":
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *exception: object) -> None:
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self._run_server(self._config, self._on_started, self._stop)

        try:
            asyncio.run(main())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    def _on_started(self, ports: Ports) -> None:
        self.ports = ports
        self._ready.set()
