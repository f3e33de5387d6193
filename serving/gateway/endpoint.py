"""An endpoint: reads a request, serves it whole or as a stream, watches its client, counts it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.gateway.backend import Backend
from serving.gateway.calls import Call
from serving.gateway.choices import Usage
from serving.gateway.errors import error_body, error_response
from serving.gateway.requests import Body, read_request
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.http_requests import USER_HEADER, deadline_of, read_body, timeout_seconds
from serving.server.metrics import ServerMetrics
from serving.server.service import RequestLog
from serving.server.waiting import end_task

PROTOCOL = "openai"
"""Label of these requests in the metrics."""
_LOG = logging.getLogger("tokenmill.serve")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(frozen=True)
class Gateway:
    """What all endpoints share.

    Attributes:
        backend: The model.
        config: Options of the server.
        metrics: Counts requests, seconds and tokens.
        request_log: Takes a line for a sample of the requests.
    """

    backend: Backend
    config: ServerConfig
    metrics: ServerMetrics
    request_log: RequestLog


class Endpoint:
    """ASGI application of one route.

    A client that leaves, at any time, ends the work for it. The deadline is that of the first
    token, or of the answer where none is generated; after it each token has as long as that, and
    a client that reads nothing for `idle_seconds` is left.

    Args:
        gateway: What all endpoints share.
        route: Its name in the metrics.
        body: What the request is read as; None where it has none (GET).
        handler: Yields the answer, or the events of a stream.
    """

    def __init__(
        self,
        gateway: Gateway,
        route: str,
        body: type[Body] | None,
        handler: Callable[[Call[Any]], AsyncGenerator[BaseModel, None]],
    ):
        self._gateway, self._route, self._body = gateway, route, body
        self._handler = handler
        gateway.metrics.start_route(PROTOCOL, route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; what goes wrong is answered, too."""
        arrived = time.monotonic()
        answer = _Answer(self._gateway, self._route, Request(scope, receive), send)
        try:
            await self._serve(answer, arrived)
        except ClientDisconnect:
            answer.code = "CANCELLED"
        except asyncio.CancelledError:  # the server ends, and has waited as long as it does
            await answer.fail(RequestError(Code.UNAVAILABLE, "the server is ending; try again"))
        except RequestError as error:
            await answer.fail(error)
        except Exception as error:
            _LOG.exception("request_failed")
            await answer.fail(RequestError(Code.INTERNAL, type(error).__name__))
        finally:
            answer.count(time.monotonic() - arrived)

    async def _serve(self, answer: _Answer, arrived: float) -> None:
        request, config = answer.request, self._gateway.config
        deadline = deadline_of(arrived, config.deadline_seconds, timeout_seconds(request))
        body = Body()
        if self._body is not None:
            content = await read_body(request, config.max_request_bytes, deadline)
            body = read_request(content, self._body)
        user = getattr(body, "user", None) or request.headers.get(USER_HEADER)
        call: Call[Any] = Call(self._gateway.backend, config, body, user, deadline)
        answer.call = call
        work = asyncio.ensure_future(answer.send_all(self._handler(call)))
        gone = asyncio.ensure_future(_until_gone(request.receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
        finally:
            # Until it has ended: what it held must be free when the request is no longer counted.
            for task in (work, gone):
                await end_task(task)
        work.result()


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has left; or, in a request without body, until it has sent none."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Answer:
    """The answer to one request.

    Args:
        gateway: What all endpoints share.
        route: Name of the endpoint.
        request: The request.
        send: Takes the parts of the answer.
    """

    def __init__(self, gateway: Gateway, route: str, request: Request, send: Send):
        self._gateway, self._route = gateway, route
        self.request, self._send = request, send
        self.call: Call[Any] | None = None
        self.code = "OK"
        self._started = False
        given = request.headers.get("x-request-id", "")
        self._id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

    async def send_all(self, events: AsyncGenerator[BaseModel, None]) -> None:
        """Send the whole answer; the first event is awaited before it begins, for its status."""
        assert self.call is not None
        arrived = time.monotonic()
        async with contextlib.aclosing(events):
            first = await events.__anext__()
            self._gateway.metrics.first_token_seconds.labels(self._route).observe(
                time.monotonic() - arrived
            )
            if not getattr(self.call.body, "stream", None):
                await self._send_whole(Response(_json(first), media_type="application/json"))
                return
            await self._start_stream()
            await self._send_event(_json(first))
            async for event in events:
                await self._send_event(_json(event))
            await self._send_event(b"[DONE]")
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: RequestError) -> None:
        """Answer with an error; in a stream that has begun by an event, its last."""
        self.code = error.code.name
        if not self._started:
            await self._send_whole(error_response(error))
            return
        await self._send_event(orjson.dumps(error_body(error)))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_whole(self, response: Response) -> None:
        self._started = True
        response.headers.update(self._headers())
        await response(self.request.scope, self.request.receive, self._send)

    async def _start_stream(self) -> None:
        self._started = True
        start = Response(None, headers=_STREAM_HEADERS | self._headers())
        headers = [(n, v) for n, v in start.raw_headers if n != b"content-length"]
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send_event(self, data: bytes) -> None:
        await self._send(
            {"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True}
        )

    def _headers(self) -> dict[str, str]:
        headers = {"x-request-id": self._id}
        if self.call is not None and self.call.version is not None:
            headers["x-model-version"] = str(self.call.version)
        return headers

    def count(self, seconds: float) -> None:
        """Count the request, its seconds and tokens, and log it."""
        call, metrics = self.call, self._gateway.metrics
        version = "" if call is None or call.version is None else str(call.version)
        names = (PROTOCOL, version, "", self._route)
        metrics.requests.labels(*names, self.code).inc()
        metrics.seconds.labels(*names).observe(seconds)
        usage = Usage() if call is None else call.usage
        for kind, tokens in (("prompt", usage.prompt), ("generated", usage.generated)):
            if tokens:
                metrics.tokens.labels(version, self._route, kind).inc(tokens)
        texts = [] if call is None else [text.encode("utf-8", "replace") for text in call.texts]
        self._gateway.request_log.write(
            PROTOCOL, version, "", self._route, self.code, seconds, usage.prompt + usage.generated,
            {"text": np.array(texts, object)}, None if call is None else call.user_key,
        )  # fmt: skip


def _json(answer: BaseModel) -> bytes:
    return orjson.dumps(answer.model_dump())
