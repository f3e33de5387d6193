"""What the server can be told, and the errors that it answers with."""

import enum
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSettings:
    """Options of `tokenmill serve`.

    Attributes:
        model_dir: Base directory of numbered versions.
        model_name: The name in URLs and in model_spec.
        host: Where to listen; loopback unless told otherwise.
        rest_port: Port of the REST API; 0 takes a free one.
        grpc_port: Port of the gRPC API; 0 takes a free one.
        max_batch_size: Rows computed at once, and the most that a request may have.
        batch_timeout_micros: How long a batch that is not full waits for more rows.
        num_batch_threads: Batches computed at the same time.
        max_queued_rows: Rows waiting; a request beyond them is shed with 429.
            It bounds the wait of those that are admitted.
        max_request_bytes: A longer request is refused.
        deadline_seconds: For requests that name none.
        poll_seconds: How often the directory is looked at for new versions.
        request_log: A JSON-lines file for a sample of requests, or None.
        request_log_fraction: Share of the requests that is logged.
        log_text: Whether the request log holds texts; without, their lengths only.
    """

    model_dir: str
    model_name: str = "default"
    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    max_batch_size: int = 16
    batch_timeout_micros: int = 0
    num_batch_threads: int = 2
    max_queued_rows: int = 32
    max_request_bytes: int = 1 << 20
    deadline_seconds: float = 30.0
    poll_seconds: float = 1.0
    request_log: str | None = None
    request_log_fraction: float = 1.0
    log_text: bool = False

    @property
    def max_requests(self) -> int:
        """Requests that can be computed or wait at once; each has at least one row."""
        return self.max_queued_rows + self.num_batch_threads * self.max_batch_size


class Code(enum.Enum):
    """What went wrong: a gRPC status by name, and its HTTP status."""

    INVALID_ARGUMENT = 400
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
