"""Service behind REST and gRPC: answers a request, counts it, logs it."""

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from serving.server.batching import Batcher
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.metrics import ServerMetrics
from serving.server.model import LoadedModel, Signature
from serving.server.versions import VersionManager

_LOG = logging.getLogger("tokenmill.serve")
_LONGEST_DEADLINE_SECONDS = 600.0


@dataclass(frozen=True)
class Target:
    """Addressee of a request: the model's name, and a version, a label or neither."""

    model: str
    version: int | None = None
    label: str | None = None


class Service:
    """Versions, batcher and metrics of a server.

    Args:
        config: Options of the server.
    """

    def __init__(self, config: ServerConfig):
        self.config = config
        self.metrics = ServerMetrics()
        self.versions = VersionManager(config, self.metrics)
        self.batcher = Batcher(config, self.metrics)
        self._request_log = RequestLog(config)
        self._requests = 0  # admitted and not answered; touched by the event loop only

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request from its arrival to its answer.

        Raises:
            RequestError: There are as many as can be computed or wait: it is shed, before its
                body is read, so that those that were admitted are not slowed down.
        """
        if self._requests >= self.config.max_requests:
            self.metrics.shed.inc()
            raise RequestError(Code.RESOURCE_EXHAUSTED, "the server is full; try again later")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def check_name(self, name: str) -> None:
        """Compare the name with this server's; it is never used as a path.

        Raises:
            RequestError: It is not this server's.
        """
        if name != self.config.model_name:
            raise RequestError(Code.NOT_FOUND, f"no model {name!r:.80}")

    def deadline(self, arrived: float, timeout_seconds: float | None) -> float:
        """Return the deadline of a request, in seconds of `time.monotonic`.

        Raises:
            RequestError: It has passed.
        """
        timeout = self.config.deadline_seconds if timeout_seconds is None else timeout_seconds
        deadline = arrived + min(timeout, _LONGEST_DEADLINE_SECONDS)
        if not deadline > time.monotonic():
            raise RequestError(Code.DEADLINE_EXCEEDED, "the deadline has passed")
        return deadline

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
            deadline = self.deadline(arrived, timeout_seconds)
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
            self._request_log.write(
                protocol, version, label, signature_name, code, seconds, tokens, inputs, user_key
            )


class RequestLog:
    """A sample of the requests as JSON lines: sizes and times; texts only if asked for."""

    def __init__(self, config: ServerConfig):
        self._config = config
        self._random = random.Random()  # which requests are sampled is no data
        self._file: TextIO | None = None
        if config.request_log:
            self._file = open(config.request_log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(
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
    ) -> None:
        """Adds a line, or does not, by chance."""
        if self._file is None or self._random.random() >= self._config.request_log_fraction:
            return
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
            "text_words": [len(t.split()) for t in decoded],
            "user": hashlib.sha256(user_key.encode()).hexdigest()[:16] if user_key else None,
        }
        if self._config.log_text:
            record["text"] = decoded
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
