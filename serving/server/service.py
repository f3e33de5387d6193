"""Service behind REST and gRPC: answers a request, counts it, logs it."""

import asyncio
import errno
import hashlib
import io
import json
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.server.admission import Admission, Keys
from serving.server.batching import Batcher
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.http_requests import deadline_of
from serving.server.metrics import ServerMetrics
from serving.server.model import LoadedModel, Signature
from serving.server.versions import VersionManager
from tokenmill.errors import TokenmillError
from tokenmill.text.text_columns import word_counts

_LOG = logging.getLogger("tokenmill.serve")
_SECONDS_BETWEEN_COMPLAINTS = 60.0


@dataclass(frozen=True)
class Target:
    """Addressee of a request: the model's name, and a version, a label or neither."""

    model: str
    version: int | None = None
    label: str | None = None


class Service:
    """Versions, batcher, admission, metrics and request log of a server.

    Args:
        config: Options of the server.
        keys: API keys that callers need; None where none is needed.
    """

    def __init__(self, config: ServerConfig, keys: Keys | None = None):
        self.config = config
        self.metrics = ServerMetrics()
        self.versions = VersionManager(config, self.metrics)
        self.batcher = Batcher(config, self.metrics)
        self.request_log = RequestLog(config, self.metrics)
        self.admission = Admission(config, self.metrics, keys)

    def check_name(self, name: str) -> None:
        """Compare the name with this server's; it is never used as a path.

        Raises:
            RequestError: It is not this server's.
        """
        if name != self.config.model_name:
            served = self.config.model_name
            raise RequestError(
                Code.NOT_FOUND, f"no model {name!r:.80}; this server has {served!r} (serve --name)"
            )

    async def predict(
        self,
        protocol: str,
        target: Target,
        decode: Callable[[LoadedModel], tuple[Signature, dict[str, np.ndarray], Any]],
        user_key: str | None,
        arrived: float,
        timeout_seconds: float | None,
    ) -> tuple[dict[str, np.ndarray], LoadedModel, Signature, Any]:
        """Answer a request.

        Args:
            protocol: "rest" or "grpc".
            target: Addressee of the request.
            decode: Returns signature and inputs, and whatever else the caller wants back.
            user_key: Key that assigns the user to an arm of a rollout.
            arrived: Time of arrival, seconds of `time.monotonic`.
            timeout_seconds: Seconds from its arrival to its deadline; None takes the server's.

        Raises:
            RequestError: It cannot be answered.
        """
        version = label = signature_name = ""
        outputs: dict[str, np.ndarray] = {}
        code, tokens = "OK", 0
        inputs: dict[str, np.ndarray] = {}
        try:
            self.check_name(target.model)
            deadline = deadline_of(arrived, self.config.deadline_seconds, timeout_seconds)
            with self.versions.hold(target.version, target.label, user_key) as (model, label):
                version = str(model.version)
                signature, inputs, extra = decode(model)
                signature_name = signature.name
                outputs = await self.batcher.compute(model, signature_name, inputs, deadline)
            tokens = self.metrics.count_tokens(version, signature_name, outputs)
            return outputs, model, signature, extra
        except RequestError as error:
            code = error.code.name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            code = "INTERNAL"
            _LOG.exception("request_failed")
            raise RequestError(Code.INTERNAL, type(error).__name__) from error
        finally:
            seconds = time.monotonic() - arrived
            names = (protocol, version, label, signature_name)
            self.metrics.requests.labels(*names, code).inc()
            self.metrics.seconds.labels(*names).observe(seconds)
            self.request_log.write(
                protocol, version, label, signature_name, code, seconds, tokens, inputs, user_key
            )


class RequestLog:
    """A sample of the requests as JSON lines: sizes and times; texts only if asked for.

    Args:
        config: The file, and what is logged.
        metrics: Counts the lines that were lost.

    Raises:
        TokenmillError: The file cannot be written.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics):
        self._config, self._metrics = config, metrics
        self._random = random.Random()  # which requests are sampled is no data
        self._file: io.RawIOBase | None = None
        self._broken_line = False
        self._complained = -_SECONDS_BETWEEN_COMPLAINTS
        if config.request_log:
            word_counts([""])  # makes its tables now, not within the first request
            try:
                self._file = open(config.request_log, "ab", 0, opener=_open_at_once)  # noqa: SIM115
            except OSError as error:
                raise TokenmillError(
                    f"cannot write the request log {config.request_log}: {error.strerror}.",
                    "Name another file with --request-log.",
                ) from None

    def write(self, *record: Any) -> None:
        """Add a line, or do not, by chance; a line that cannot be written is counted as lost.

        Args:
            *record: The arguments of `_line`.
        """
        if self._file is None or self._random.random() >= self._config.request_log_fraction:
            return
        try:
            self._append(self._line(*record))
        except Exception as error:  # whatever it is: a full disk must not cost anybody an answer
            self._metrics.lost_log_lines.inc()
            if time.monotonic() - self._complained >= _SECONDS_BETWEEN_COMPLAINTS:
                self._complained = time.monotonic()
                _LOG.error("request_log_failed", extra={"reason": str(error)})

    def _line(
        self,
        protocol: str,
        version: str,
        label: str,
        signature: str,
        code: str,
        seconds: float,
        tokens: int,
        inputs: dict[str, np.ndarray],
        user_key: str | None,
    ) -> bytes:
        column = inputs.get("text")
        texts: list[bytes] = []
        if column is not None:
            texts = [text for text in column.reshape(-1) if isinstance(text, bytes)]
        decoded = [t.decode("utf-8", "replace") for t in texts]
        record = {
            "time": time.time(),
            "protocol": protocol,
            "version": version,
            "label": label,
            "signature": signature,
            "code": code,
            "seconds": round(seconds, 6),
            "tokens": tokens,
            "text_bytes": [len(t) for t in texts],
            "text_characters": [len(t) for t in decoded],
            "text_words": word_counts(decoded).tolist(),
            "user": hashlib.sha256(user_key.encode()).hexdigest()[:16] if user_key else None,
        }
        if self._config.log_text:
            record["text"] = decoded
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"

    def _append(self, line: bytes) -> None:
        """Write a line at once; begin a new one first if the last was cut off by a full disk."""
        assert self._file is not None
        line = b"\n" + line if self._broken_line else line
        written = self._file.write(line) or 0
        self._broken_line = written < len(line) if written else self._broken_line
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a named pipe without a reader is an error instead of a wait for one."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
