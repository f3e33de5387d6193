"""TensorFlow Serving's REST API as an ASGI application.

The API: https://www.tensorflow.org/tfx/serving/api_rest
"""

import re
import time
from collections.abc import Callable, Sequence

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from serving.server.admission import AdmissionMiddleware
from serving.server.codec import decode_body, encode_answer
from serving.server.errors import Code, RequestError
from serving.server.http_requests import USER_HEADER, deadline_of, read_body, timeout_seconds
from serving.server.protos import metadata_response, status_response
from serving.server.service import Service, Target
from tokenmill.stack import proto_json

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<what>:predict|:classify|:regress|/metadata)?"
)


def make_app(
    service: Service,
    routes: Sequence[BaseRoute] = (),
    refusal: Callable[[str, RequestError], Response | None] = lambda path, error: None,
) -> ASGIApp:
    """Make the application; it answers every error as {"error": message}.

    Args:
        service: The server.
        routes: Those of another API on the same port.
        refusal: Writes a request's refusal by its path, in that API's form; None if it is not its.
    """

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
            *routes,
            Route("/v1/models/{rest:path}", models, methods=["GET", "POST"]),
        ],
        exception_handlers={404: unknown},
    )
    app.router.redirect_slashes = False  # a path is answered or not found
    return AdmissionMiddleware(
        app, service.admission, lambda path, error: refusal(path, error) or _error(error)
    )


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
    timeout = timeout_seconds(request)
    deadline = deadline_of(arrived, service.config.deadline_seconds, timeout)
    body = await read_body(request, service.config.max_request_bytes, deadline)
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
