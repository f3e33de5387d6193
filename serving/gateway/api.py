"""The routes of the OpenAI-compatible API, and the application of a gateway that stands alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.gateway.answers import (
    ChatCompletion,
    Completion,
    Detokenized,
    Embeddings,
    Model,
    ModelList,
    Tokenized,
    TokenizerInfo,
)
from serving.gateway.calls import Call
from serving.gateway.chat import chat_completions
from serving.gateway.completions import completions
from serving.gateway.endpoint import Endpoint, Gateway
from serving.gateway.errors import FieldError, error_response, unknown_model
from serving.gateway.openapi import Operation, openapi_document
from serving.gateway.requests import (
    Body,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
)
from serving.gateway.texts import detokenize, embeddings, model, tokenize, tokenizer_info
from serving.server.admission import Admission, AdmissionMiddleware
from serving.server.errors import Code, RequestError


class _Endpoint(NamedTuple):
    """A path.

    Attributes:
        path: The path.
        name: Its name in metrics and in the OpenAPI document.
        body: What is sent; None for GET.
        handler: What answers.
        answer: What it answers with.
    """

    path: str
    name: str
    body: type[Body] | None
    handler: Callable[[Call[Any]], AsyncGenerator[BaseModel, None]]
    answer: type[BaseModel]

    @property
    def method(self) -> str:
        """Return the one method that the path has."""
        return "GET" if self.body is None else "POST"


async def _models(call: Call[Body]) -> AsyncGenerator[ModelList, None]:
    """List the one model."""
    async for found in model(call):
        yield ModelList(data=[found])


_ENDPOINTS = (
    _Endpoint("/v1/models", "models", None, _models, ModelList),
    _Endpoint("/v1/completions", "completions", CompletionRequest, completions, Completion),
    _Endpoint(
        "/v1/chat/completions", "chat_completions", ChatRequest, chat_completions, ChatCompletion
    ),
    _Endpoint("/v1/embeddings", "embeddings", EmbeddingRequest, embeddings, Embeddings),
    _Endpoint("/tokenize", "tokenize", TokenizeRequest, tokenize, Tokenized),
    _Endpoint("/detokenize", "detokenize", DetokenizeRequest, detokenize, Detokenized),
    _Endpoint("/tokenizer_info", "tokenizer_info", None, tokenizer_info, TokenizerInfo),
)
_ONE_MODEL = _Endpoint("/v1/models/{id}", "model", None, model, Model)
_DOCUMENT = "/openapi.json"
_PATHS = {endpoint.path for endpoint in _ENDPOINTS} | {_DOCUMENT}


def is_gateway_path(path: str) -> bool:
    """Tell whether a path is the API's, whose errors have OpenAI's form."""
    return path in _PATHS


def gateway_routes(gateway: Gateway, alone: bool) -> list[BaseRoute]:
    """Make the routes.

    Args:
        gateway: The model, and where requests are counted.
        alone: Whether /v1/models/NAME is OpenAI's; beside TensorFlow Serving's API it is that one's
            model status.
    """
    endpoints = [*_ENDPOINTS, _ONE_MODEL] if alone else list(_ENDPOINTS)
    document = orjson.dumps(
        openapi_document([Operation(e.path, e.method, e.name, e.body, e.answer) for e in endpoints])
    )

    written = Response(document, media_type="application/json")
    routes: list[BaseRoute] = [Route(_DOCUMENT, _OneMethod("GET", written))]
    for one in endpoints:
        endpoint: ASGIApp = Endpoint(gateway, one.name, one.body, one.handler)
        if one is _ONE_MODEL:
            endpoint = _OfModel(gateway.backend.model_name, endpoint)
        routes.append(Route(one.path, _OneMethod(one.method, endpoint)))
    return routes


def _status(status: str, code: int = 200) -> Response:
    return Response(orjson.dumps({"status": status}), code, media_type="application/json")


class _OneMethod:
    """ASGI application that refuses other methods in OpenAI's form.

    Args:
        method: The method; GET takes HEAD, too.
        app: The application.
    """

    def __init__(self, method: str, app: ASGIApp):
        self._methods = ("GET", "HEAD") if method == "GET" else (method,)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            error = FieldError(
                None, f"use {self._methods[0]} for {scope['path']:.80}", None,
                Code.METHOD_NOT_ALLOWED,
            )  # fmt: skip
            response = error_response(error, {"allow": ", ".join(self._methods)})
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _OfModel:
    """ASGI application of a path that names the model."""

    def __init__(self, name: str, app: ASGIApp):
        self._name, self._app = name, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["path_params"]["id"]
        if asked == self._name:
            await self._app(scope, receive, send)
        else:
            await error_response(unknown_model(asked, self._name))(scope, receive, send)


def make_gateway_app(gateway: Gateway, admission: Admission) -> ASGIApp:
    """Make the application of a gateway that stands before a server elsewhere.

    Args:
        gateway: The model, and where requests are counted.
        admission: Which requests are let in.
    """

    async def healthz(request: Request) -> Response:
        return _status("alive")

    async def readyz(request: Request) -> Response:
        try:
            async with gateway.backend.hold(None):
                return _status("ready")
        except RequestError as error:
            return _status(error.message, 503)

    async def metrics(request: Request) -> Response:
        return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4")

    async def unknown(request: Request, error: Exception) -> Response:
        return error_response(FieldError(None, f"no path {request.url.path!r:.80}; see {_DOCUMENT}",
                                         None, Code.NOT_FOUND))  # fmt: skip

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            *gateway_routes(gateway, alone=True),
        ],
        exception_handlers={404: unknown},
    )
    app.router.redirect_slashes = False  # a path is answered or not found
    return AdmissionMiddleware(app, admission, lambda path, error: error_response(error))
