"""Which requests are let in: by their sender, by API key, and as many as can be computed."""

import contextlib
import ipaddress
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.metrics import ServerMetrics

OPEN_PATHS = ("/healthz", "/readyz", "/metrics", "/monitoring/prometheus/metrics")
"""What is answered without an API key: who watches a server has none."""


class Keys(Protocol):
    """API keys that callers need."""

    def check(self, authorization: str | None) -> None:
        """Compare a header `authorization` or gRPC's metadata of that name.

        Raises:
            RequestError: It holds none of the keys.
        """


class Admission:
    """Bounds the requests of a server, whatever protocol they come by.

    Args:
        config: Names of the server, and how many requests it takes.
        metrics: Counts what is shed.
        keys: API keys; None where none is needed.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics, keys: Keys | None = None):
        self._config, self._metrics, self.keys = config, metrics, keys
        self._requests = 0  # admitted and not answered; touched by the event loop only
        self._allowed = {name.lower() for name in config.allowed_hosts}
        self._names = {"localhost", config.host.lower(), *self._allowed}

    @property
    def requests(self) -> int:
        """Return how many requests are admitted and not answered."""
        return self._requests

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request from its arrival to its answer.

        Raises:
            RequestError: There are as many as can be computed or wait: it is shed, before its
                body is read, so that those that were admitted are not slowed down.
        """
        if self._requests >= self._config.max_requests:
            self._metrics.shed.inc()
            raise RequestError(Code.RESOURCE_EXHAUSTED, "the server is full; try again later")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def check_sender(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Refuse what a web page may send in its reader's name.

        A page elsewhere may post here (then it is named as the origin), or give its own name this
        machine's address and so be of the same origin (DNS rebinding; then the host has its name).

        Args:
            headers: Names, lower-case, and values.

        Raises:
            RequestError: The server is not called so, or the page is another's.
        """
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        for host in hosts:
            name = _host_name(f"//{host}")
            if "*" not in self._names and name not in self._names and not _is_address(name):
                raise RequestError(
                    Code.PERMISSION_DENIED,
                    f"this server is not called {name!r:.80}; start it with --allow-host to be",
                )
        for origin in origins:
            name = _host_name(origin)
            same = [origin.partition("://")[2]] == hosts
            if not same and not {"*", name} & self._allowed:
                raise RequestError(
                    Code.PERMISSION_DENIED,
                    f"pages of {origin!r:.80} may not use this server; --allow-host allows it",
                )


class AdmissionMiddleware:
    """Refuses HTTP requests before they are read and routed, which costs time.

    Args:
        app: The application.
        admission: What decides.
        error_response: Writes a refusal, in the form of the path's API.
    """

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        error_response: Callable[[str, RequestError], Response],
    ):
        self._app, self._admission, self._error_response = app, admission, error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through to the application, or answer with why not."""
        try:
            self._admission.check_sender(scope["headers"])
            if self._admission.keys is not None and scope["path"] not in OPEN_PATHS:
                given = [v.decode("latin-1") for n, v in scope["headers"] if n == b"authorization"]
                self._admission.keys.check(given[0] if given else None)
            if scope["method"] != "POST":  # health is always answered
                await self._app(scope, receive, send)
                return
            with self._admission.admit():
                await self._app(scope, receive, send)
        except RequestError as error:
            await self._error_response(scope["path"], error)(scope, receive, send)


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
