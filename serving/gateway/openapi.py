"""The OpenAPI document of the API, made from the models of its bodies and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from serving.gateway.answers import ChatChunk, ErrorAnswer
from serving.gateway.requests import Body, ChatRequest, Sampling
from serving.server.errors import Code

_REFERENCE = "#/components/schemas/{model}"
_JSON, _EVENTS = "application/json", "text/event-stream"
_ERRORS = {
    Code.UNAUTHENTICATED: "No API key, or none of the server's.",
    Code.PERMISSION_DENIED: "Host or Origin is none that the server knows.",
    Code.NOT_FOUND: "No such model.",
    Code.RESOURCE_EXHAUSTED: "The server is full; try again later.",
    Code.INTERNAL: "The server's fault.",
    Code.UNAVAILABLE: "No version is ready.",
    Code.DEADLINE_EXCEEDED: "The first token did not come in time.",
}
_ERRORS_OF_BODIES = {
    Code.INVALID_ARGUMENT: "A key or value that is not served; the error names it.",
    Code.TOO_LARGE: "The body is too long.",
}


class Operation(NamedTuple):
    """What a path does.

    Attributes:
        path: The path.
        method: GET or POST.
        name: Its name.
        body: What is sent; None for GET.
        answer: What it answers with.
    """

    path: str
    method: str
    name: str
    body: type[Body] | None
    answer: type[BaseModel]


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    sent: list[type[BaseModel]] = [o.body for o in operations if o.body is not None]
    answered: list[type[BaseModel]] = [o.answer for o in operations]
    answered += [ChatChunk, ErrorAnswer]
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(one, "validation") for one in sent]
    models += [(one, "serialization") for one in answered]
    _, schemas = models_json_schema(models, ref_template=_REFERENCE)
    paths: dict[str, Any] = {}
    for one in operations:
        paths[one.path] = {one.method.lower(): _operation(one)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tokenmill gateway",
            "version": "1",
            "description": "An OpenAI-compatible API in front of a pushed model.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # With or without: a server has keys or has not.
        "security": [{}, {"key": []}],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    errors = dict(_ERRORS)
    content: dict[str, Any] = {_JSON: {"schema": _schema(operation.answer)}}
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": (operation.answer.__doc__ or "").partition("\n")[0],
    }
    if operation.body is not None:
        errors |= _ERRORS_OF_BODIES
        found["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": _schema(operation.body)}},
        }
        if issubclass(operation.body, Sampling):
            event = ChatChunk if operation.body is ChatRequest else operation.answer
            meaning = f"{event.__name__} as JSON; of the last event [DONE]."
            data = {"type": "string", "description": meaning}
            content[_EVENTS] = {
                "schema": {"type": "object", "required": ["data"], "properties": {"data": data}}
            }
    if "{id}" in operation.path:
        found["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    found["responses"] = {
        "200": {"description": "The answer.", "content": content},
        **{
            str(code.value): {
                "description": meaning,
                "content": {_JSON: {"schema": _schema(ErrorAnswer)}},
            }
            for code, meaning in sorted(errors.items(), key=lambda item: item[0].value)
        },
    }
    return found


def _schema(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
