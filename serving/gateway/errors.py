"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from serving.server.errors import Code, RequestError

_TYPES = {
    Code.UNAUTHENTICATED: "authentication_error",
    Code.PERMISSION_DENIED: "permission_error",
    Code.RESOURCE_EXHAUSTED: "rate_limit_error",
    Code.INTERNAL: "server_error",
    Code.UNAVAILABLE: "server_error",
    Code.DEADLINE_EXCEEDED: "timeout_error",
}
_CODES = {
    Code.UNAUTHENTICATED: "invalid_api_key",
    Code.RESOURCE_EXHAUSTED: "rate_limit_exceeded",
}


class FieldError(RequestError):
    """A field of a request that cannot be served.

    Args:
        field: Its name.
        message: What is wrong, what was expected.
        reason: OpenAI's `code`, such as "context_length_exceeded".
        code: The status.
    """

    def __init__(
        self,
        field: str | None,
        message: str,
        reason: str | None = None,
        code: Code = Code.INVALID_ARGUMENT,
    ):
        super().__init__(code, message)
        self.field, self.reason = field, reason


def unknown_model(name: str, served: str) -> FieldError:
    """Return the error for a model that is not served."""
    return FieldError(
        "model",
        f"no model {name!r:.80}; this server has {served!r}",
        "model_not_found",
        Code.NOT_FOUND,
    )


def error_body(error: RequestError) -> dict[str, Any]:
    """Return the JSON of an error."""
    field, reason = None, _CODES.get(error.code)
    if isinstance(error, FieldError):
        field, reason = error.field, error.reason or reason
    kind = _TYPES.get(error.code, "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": field, "code": reason}}


def error_response(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    """Return an error as a whole answer."""
    headers = dict(headers or {})
    if error.code is Code.RESOURCE_EXHAUSTED:
        headers["retry-after"] = "1"
    if error.code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    body = orjson.dumps(error_body(error))
    return Response(body, error.code.value, headers, media_type="application/json")
