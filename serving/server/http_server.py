"""An HTTP server on the running event loop: its socket, its bounds, and how it ends."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from serving.server.config import ServerConfig
from serving.server.protocol import bounded_protocol
from tokenmill.errors import TokenmillError


@dataclass(frozen=True)
class Ports:
    """Port numbers that the server listens on; 0 where it has none."""

    rest: int
    grpc: int = 0


class _Server(uvicorn.Server):
    """Server that leaves signals to `serve_http`: uvicorn would raise them again, undrained."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


async def serve_http(
    app: ASGIApp,
    config: ServerConfig,
    listener: socket.socket,
    started: Callable[[], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; answer what was accepted before it returns.

    Args:
        app: The application.
        config: Its bounds.
        listener: From `listen`.
        started: Called when requests are answered.
        stop: Ends the server when it is set; None where only signals do.
    """
    uvicorn_config = uvicorn.Config(
        app,
        http=bounded_protocol(config),
        ws="none",
        log_config=None,
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=int(config.deadline_seconds) + 1,
        timeout_keep_alive=max(1, round(config.idle_seconds)),
        server_header=False,
    )
    uvicorn_config.load()  # now: what it cannot import is said before the ports are given out
    server = _Server(uvicorn_config)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(
                number, setattr, server, "should_exit", True
            )
    stopping = asyncio.ensure_future(_stop_when(stop, server)) if stop is not None else None
    started()
    try:
        await server.serve(sockets=[listener])
    finally:
        if stopping is not None:
            stopping.cancel()


async def _stop_when(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


def listen(host: str, port: int, option: str = "--rest-port") -> socket.socket:
    """Open a port.

    Args:
        host: Address to listen on.
        port: 0 takes a free one.
        option: By which a user chooses the port, for the message.

    Raises:
        TokenmillError: It is in use, or may not be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where TCP is named: answers waited 40 ms for an
        # acknowledgement between their headers and their body.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
        return listener
    except OSError as error:
        listener.close()
        if error.errno in (98, 48):  # EADDRINUSE on Linux, on macOS
            raise in_use(host, port, option) from None
        raise TokenmillError(
            f"cannot listen on {host}:{port}: {error.strerror}.",
            f"Give an address of this machine (--host) and another {option}; ports below 1024 are "
            "the administrator's.",
        ) from None


def in_use(host: str, port: int, option: str) -> TokenmillError:
    """Return the error for a port that another process has."""
    return TokenmillError(
        f"{host}:{port} is in use, or may not be used.", f"Choose another port with {option}."
    )
