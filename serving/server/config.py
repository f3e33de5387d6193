"""Configuration of the server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerConfig:
    """Options of `tokenmill serve`.

    Attributes:
        model_dir: Base directory of numbered versions.
        model_name: Name of the model in URLs and in model_spec.
        host: Address to listen on; by default the loopback.
        rest_port: Port of the REST API; 0 takes a free one.
        grpc_port: Port of the gRPC API; 0 takes a free one.
        max_batch_size: Rows computed at once, and the most that a request may have.
        batch_timeout_micros: How long a batch that is not full waits for more rows.
        num_batch_threads: Batches computed at the same time.
        max_queued_rows: Rows waiting; a request beyond them is shed with 429.
            It bounds the wait of those that are admitted.
        max_request_bytes: A longer request is refused.
        deadline_seconds: Longest time of a request; one may ask for a shorter.
        poll_seconds: Seconds between two looks at the directory for new versions.
        request_log: A JSON-lines file for a sample of requests, or None.
        request_log_fraction: Share of the requests that is logged.
        log_text: Whether the request log holds texts; without, their lengths only.
        allowed_hosts: Names, beside addresses and localhost, by which this server is called, and
            hosts whose web pages may call it; "*" allows all.
        openai: Whether the OpenAI-compatible API is served beside TensorFlow Serving's.
        api_keys: A file of API keys, one a line, that callers need; None where none is needed.
        kv_cache_bytes: Memory for the keys and values of texts that are continued by that API; what
            does not fit in waits.
        max_streams: Texts that are continued by it at the same time.
        max_connections: REST connections at once.
        max_header_bytes: Longest request line and headers.
        idle_seconds: How long a connection may stay open without sending a whole request's headers.
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
    allowed_hosts: tuple[str, ...] = ()
    openai: bool = False
    api_keys: str | None = None
    kv_cache_bytes: int = 1 << 30
    max_streams: int = 64
    max_connections: int = 512
    max_header_bytes: int = 1 << 16
    idle_seconds: float = 30.0

    @property
    def max_requests(self) -> int:
        """Return how many requests can be computed or wait at once; each has at least one row."""
        return self.max_queued_rows + self.num_batch_threads * self.max_batch_size
