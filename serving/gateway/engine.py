"""Continues the texts of all clients of an event loop by one thread, a step at a time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from serving.gateway.backend import GeneratedToken, SamplingConfig
from serving.gateway.decoding import Decoding, Text
from serving.server.errors import Code, RequestError

if TYPE_CHECKING:
    from serving.server.metrics import ServerMetrics

_LOG = logging.getLogger("tokenmill.serve")


class Engine:
    """Streams of tokens, made in one batch.

    Args:
        decoding: The model; used by the engine's thread only.
        threads: Of one thread: where the model is called.
        max_texts: Texts that are continued or wait for room; one more is refused.
        metrics: Counts the texts of each step.
    """

    def __init__(
        self,
        decoding: Decoding,
        threads: concurrent.futures.Executor,
        max_texts: int,
        metrics: ServerMetrics | None = None,
    ):
        self._decoding, self._threads = decoding, threads
        self._max_texts, self._metrics = max_texts, metrics
        self._streams: dict[Text, asyncio.Queue[GeneratedToken | Exception]] = {}
        self._new: list[Text] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """Return how many texts are continued or wait."""
        return len(self._streams)

    async def generate(
        self, prompt: Sequence[int], sampling: SamplingConfig, stop_ids: Sequence[int]
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Continue a prompt, a token at a time; closing the generator frees its place.

        Raises:
            RequestError: There is no room for it now, or for a text so long ever.
        """
        text = Text(prompt, sampling, frozenset(stop_ids))
        if not self._decoding.fits(text):
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"prompt and answer have {text.slots} tokens, more than the server's memory for "
                "keys and values holds; ask for fewer, or raise --kv-cache-bytes",
            )
        if len(self._streams) >= self._max_texts:
            if self._metrics is not None:
                self._metrics.shed.inc()
            raise RequestError(Code.RESOURCE_EXHAUSTED, "the queue is full; try again later")
        queue: asyncio.Queue[GeneratedToken | Exception] = asyncio.Queue()
        self._streams[text] = queue
        self._new.append(text)
        try:
            if self._running is None:
                self._running = asyncio.ensure_future(self._run())
            while True:
                token = await queue.get()
                if isinstance(token, Exception):
                    raise token
                yield token
                if token.finish_reason is not None:
                    return
        finally:
            text.left = True
            self._streams.pop(text, None)

    async def _run(self) -> None:
        """Step while there are texts."""
        loop = asyncio.get_running_loop()
        try:
            while self._new or not self._decoding.is_idle:
                for text in self._new:
                    self._decoding.add(text)
                self._new.clear()
                try:
                    made = await loop.run_in_executor(self._threads, self._decoding.advance)
                except Exception as error:  # of a full memory, or a model that is gone
                    self._fail(error)
                    continue
                if self._metrics is not None and made:
                    self._metrics.batch_rows.labels("decode_ids").observe(len(made))
                for text, token in made:
                    if text in self._streams:
                        self._streams[text].put_nowait(token)
        finally:
            self._running = None

    def _fail(self, error: Exception) -> None:
        _LOG.exception("decoding_failed")
        if not isinstance(error, RequestError):
            error = RequestError(Code.INTERNAL, type(error).__name__)
        for text in self._decoding.fail():
            if text in self._streams:
                self._streams[text].put_nowait(error)


def make_thread() -> concurrent.futures.ThreadPoolExecutor:
    """Make the thread on which a model is called."""
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="decode")
