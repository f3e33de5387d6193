"""Errors that the server answers with, the same by REST and gRPC."""

import enum


class Code(enum.Enum):
    """Reason of an error: a gRPC status by name, with the HTTP status as value."""

    INVALID_ARGUMENT = 400
    UNAUTHENTICATED = 401
    PERMISSION_DENIED = 403
    NOT_FOUND = 404
    METHOD_NOT_ALLOWED = 405
    TOO_LARGE = 413
    RESOURCE_EXHAUSTED = 429
    INTERNAL = 500
    UNAVAILABLE = 503
    DEADLINE_EXCEEDED = 504


class RequestError(Exception):
    """A request that cannot be answered; the message is for its sender."""

    def __init__(self, code: Code, message: str):
        super().__init__(message)
        self.code = code
        self.message = message
