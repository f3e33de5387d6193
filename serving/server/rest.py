"""TensorFlow Serving's REST API as an ASGI application.

The API: https://www.tensorflow.org/tfx/serving/api_rest
"""

import asyncio
import ipaddress
import math
import re
import time
from urllib.parse import urlsplit

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.server.codec import decode_body, encode_answer
from serving.server.errors import Code, RequestError
from serving.server.protos import metadata_response, status_response
from serving.server.service import Service, Target
from tokenmill.stack import proto_json

USER_HEADER = "x-user-key"
TIMEOUT_HEADER = "x-timeout-seconds"

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<what>:predict|:classify|:regress|/metadata)?"
)


def make_app(service: Service) -> ASGIApp:
    """Make the application; it answers every error as {"error": message}."""

    async def models(request: Request) -> Response:
        try:
            return await _answer(service, request)
        except RequestError as error:
            return _error(error)
        except ClientDisconnect:
            return Response(status_code=499)

    async def healthz(request: Request) -> Response:
        return _json({"status": "alive"})

    async def readyz(request: Request) -> Response:
        ready = service.versions.ready
        return _json({"status": "ready" if ready else "loading"}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def unknown(request: Request, error: Exception) -> Response:
        return _json({"error": "no such path; see /v1/models/NAME"}, 404)

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/monitoring/prometheus/metrics", metrics),  # TensorFlow Serving's path
            Route("/v1/models/{rest:path}", models, methods=["GET", "POST"]),
        ],
        exception_handlers={404: unknown},
    )
    app.router.redirect_slashes = False  # a path is answered or not found
    return _Admission(app, service)


class _Admission:
    """Middleware that refuses requests before they are read and routed, which costs time.

    Those of web pages that were not asked for, and those that are more than can be computed.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._service = app, service
        self._allowed = {name.lower() for name in service.config.allowed_hosts}
        self._names = {"localhost", service.config.host.lower(), *self._allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_sender(scope["headers"])
            if scope["method"] != "POST":  # health is always answered
                await self._app(scope, receive, send)
                return
            with self._service.admit():
                await self._app(scope, receive, send)
        except RequestError as error:
            await _error(error)(scope, receive, send)

    def _check_sender(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Refuse what a web page may send in its reader's name.

        A page elsewhere may post here (then it is named as the origin), or give its own name this
        machine's address and so be of the same origin (DNS rebinding; then the host has its name).
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


def _error(error: RequestError) -> Response:
    headers = {"retry-after": "1"} if error.code is Code.RESOURCE_EXHAUSTED else {}
    return _json({"error": error.message}, error.code.value, headers)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


async def _answer(service: Service, request: Request) -> Response:
    arrived = time.monotonic()
    match = _PATH.fullmatch(request.url.path)
    if match is None:
        raise RequestError(Code.NOT_FOUND, "no such path; see /v1/models/NAME")
    version = None if match["version"] is None else int(match["version"].lstrip("0")[:20] or "0")
    if version is not None and version >= 2**63:
        raise RequestError(Code.INVALID_ARGUMENT, "the version is no number of 63 bits")
    target = Target(match["model"], version, match["label"])
    service.check_name(target.model)
    what = match["what"]
    if what in (None, "/metadata"):
        if request.method != "GET":
            raise RequestError(Code.METHOD_NOT_ALLOWED, "use GET, or POST to a path with :predict")
        message = (metadata_response if what else status_response)(service, target)
        return Response(proto_json(message), media_type="application/json")
    if request.method != "POST":
        raise RequestError(Code.METHOD_NOT_ALLOWED, f"use POST for {what}")
    timeout = _timeout(request)
    left = service.deadline(arrived, timeout) - time.monotonic()
    try:
        reading = _read_body(request, service.config.max_request_bytes)
        body = await asyncio.wait_for(reading, left)
    except asyncio.TimeoutError:
        raise RequestError(Code.DEADLINE_EXCEEDED, "the body did not come in time") from None
    if what != ":predict":
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"this model has no signature for {what}; its signatures are for :predict",
        )

    def decode(model):
        return decode_body(body, model.find)

    outputs, model, _, layout = await service.predict(
        "rest", target, decode, request.headers.get(USER_HEADER), arrived, timeout
    )
    headers = {"x-model-version": str(model.version)}
    return Response(encode_answer(outputs, layout), 200, headers, "application/json")


async def _read_body(request: Request, limit: int) -> bytes:
    """Read the body of a request, but refuse it as soon as it is known to be too long."""
    error = RequestError(Code.TOO_LARGE, f"the body is longer than {limit} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:19]) > limit:
        raise error
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise error
        parts.append(part)
    return b"".join(parts)


def _timeout(request: Request) -> float | None:
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise RequestError(Code.INVALID_ARGUMENT, f"{TIMEOUT_HEADER} is not a number of seconds")
    return seconds
