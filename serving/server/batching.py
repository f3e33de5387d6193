"""Dynamic batching: requests for one signature of one version are computed together.

All of it runs on one event loop, so nothing is locked; only the model's call is on a thread.
A batch leaves when a thread is free and it is full, or its oldest request has waited for
`batch_timeout_micros`. While all threads are busy, batches fill up.
"""

import asyncio
import concurrent.futures
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.metrics import ServerMetrics
from serving.server.model import LoadedModel
from serving.server.waiting import wait_within


@dataclass
class _Pending:
    inputs: dict[str, np.ndarray]
    rows: int
    arrived: float
    deadline: float
    answer: "asyncio.Future[dict[str, np.ndarray]]"


@dataclass
class _Queue:
    model: LoadedModel
    signature: str
    waiting: "deque[_Pending]" = field(default_factory=deque)


class Batcher:
    """Queue that computes requests in batches.

    Args:
        config: Batch size, time-out, threads, and the bound of the queue.
        metrics: Counts batch sizes and queued rows.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics):
        self._config, self._metrics = config, metrics
        self._queues: dict[tuple[int, str], _Queue] = {}
        self._queued_rows = 0
        self._free_threads = config.num_batch_threads
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._threads = concurrent.futures.ThreadPoolExecutor(
            config.num_batch_threads, thread_name_prefix="batch"
        )

    async def compute(
        self, model: LoadedModel, signature: str, inputs: dict[str, np.ndarray], deadline: float
    ) -> dict[str, np.ndarray]:
        """Compute the outputs of one request.

        Args:
            model: A version that the caller holds.
            signature: Name of the signature.
            inputs: Inputs by name, each with the same number of rows, or one.
            deadline: Latest time of the answer, seconds of `time.monotonic`.

        Raises:
            RequestError: The inputs are wrong, the queue is full, or the deadline has passed.
        """
        bound, rows = model.bind(signature, inputs)
        if rows > self._config.max_batch_size:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"the request has {rows} rows, more than max_batch_size "
                f"{self._config.max_batch_size}; send several requests",
            )
        if self._queued_rows + rows > self._config.max_queued_rows:
            self._metrics.shed.inc()
            raise RequestError(Code.RESOURCE_EXHAUSTED, "the queue is full; try again later")
        loop = asyncio.get_running_loop()
        pending = _Pending(bound, rows, time.monotonic(), deadline, loop.create_future())
        key = (id(model), signature)
        queue = self._queues.setdefault(key, _Queue(model, signature))
        queue.waiting.append(pending)
        self._count(rows)
        self._pump()
        seconds = deadline - time.monotonic()
        return await wait_within(pending.answer, seconds, "the deadline has passed")

    def _count(self, rows: int) -> None:
        self._queued_rows += rows
        self._metrics.queued_rows.set(self._queued_rows)

    def _pump(self) -> None:
        """Start the batches that can be started; set the timer for those that have to wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._free_threads:
            for queue in self._queues.values():
                self._drop_abandoned(queue)
            # Oldest first, so that no signature starves.
            waiting = sorted(
                (q for q in self._queues.values() if q.waiting), key=lambda q: q.waiting[0].arrived
            )
            now, timeout = time.monotonic(), self._config.batch_timeout_micros / 1e6
            ready = [
                q for q in waiting if self._is_full(q) or now - q.waiting[0].arrived >= timeout
            ]
            if not ready:
                if waiting:
                    wait = waiting[0].waiting[0].arrived + timeout - now
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(max(wait, 0.0001), self._pump)
                break
            self._start(ready[0])
        for key in [key for key, queue in self._queues.items() if not queue.waiting]:
            del self._queues[key]

    def _is_full(self, queue: _Queue) -> bool:
        return sum(p.rows for p in queue.waiting) >= self._config.max_batch_size

    def _drop_abandoned(self, queue: _Queue) -> None:
        """Remove requests whose deadline has passed or whose sender has left."""
        if any(p.answer.done() for p in queue.waiting):
            self._count(-sum(p.rows for p in queue.waiting if p.answer.done()))
            queue.waiting = deque(p for p in queue.waiting if not p.answer.done())

    def _start(self, queue: _Queue) -> None:
        batch: list[_Pending] = []
        rows = 0
        while queue.waiting and (
            not batch or rows + queue.waiting[0].rows <= self._config.max_batch_size
        ):
            batch.append(queue.waiting.popleft())
            rows += batch[-1].rows
        self._count(-rows)
        self._free_threads -= 1
        self._metrics.batch_rows.labels(queue.signature).observe(rows)
        now = time.monotonic()
        for pending in batch:
            self._metrics.queue_seconds.labels(queue.signature).observe(now - pending.arrived)
        task = asyncio.ensure_future(self._run(queue.model, queue.signature, batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, model: LoadedModel, signature: str, batch: list[_Pending]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self._threads, _compute_batch, model, signature, batch
            )
            for pending, result in zip(batch, results, strict=True):
                if pending.answer.done():
                    continue
                if isinstance(result, Exception):
                    pending.answer.set_exception(result)
                else:
                    pending.answer.set_result(result)
        finally:
            self._free_threads += 1
            self._pump()

    async def close(self) -> None:
        """Wait for the batches that are being computed, and stop the threads."""
        await asyncio.gather(*self._running, return_exceptions=True)
        self._threads.shutdown(wait=True)


def _compute_batch(
    model: LoadedModel, signature: str, batch: list[_Pending]
) -> list[dict[str, np.ndarray] | Exception]:
    """Call the model once for all; if that fails, once for each, to tell good requests from bad."""
    try:
        inputs = concatenate([p.inputs for p in batch], model.padding)
        outputs = model.run(signature, inputs)
        return _split(outputs, [p.rows for p in batch])
    except Exception as error:
        if len(batch) > 1:  # one is bad, or they do not fit together: caches of two widths
            return [_compute_batch(model, signature, [pending])[0] for pending in batch]
        if isinstance(error, RequestError):
            return [error]
        return [RequestError(Code.INTERNAL, f"{type(error).__name__}: {error}"[:300])]


def concatenate(parts: list[dict[str, np.ndarray]], padding: int) -> dict[str, np.ndarray]:
    """Concatenate the rows of requests; pad token ids of different lengths."""
    if len(parts) == 1:
        return parts[0]
    joined = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if arrays[0].ndim == 2:
            width = max(a.shape[1] for a in arrays)
            arrays = [
                np.pad(a, [(0, 0), (0, width - a.shape[1])], constant_values=padding)
                for a in arrays
            ]
        joined[name] = np.concatenate(arrays)
    return joined


def _split(outputs: dict[str, np.ndarray], rows: list[int]) -> list:
    """Split the outputs of a batch into those of its requests."""
    ends = np.cumsum(rows)
    return [
        {name: value[end - count : end] for name, value in outputs.items()}
        for end, count in zip(ends, rows, strict=True)
    ]
