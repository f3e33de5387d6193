"""Waiting with a time limit, such that a cancellation is never lost."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from serving.server.errors import Code, RequestError

Value = TypeVar("Value")
_CANCEL_AGAIN_SECONDS = 1.0


async def wait_within(work: Awaitable[Value], seconds: float, message: str) -> Value:
    """Wait for something, but not longer than a time.

    Python's own `asyncio.wait_for` swallows a cancellation that comes as the work ends, before
    3.12: the client that left would be served to the end.

    Args:
        work: What is waited for; it is cancelled when the time is over.
        seconds: The time.
        message: Of the error.

    Raises:
        RequestError: It took too long.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=max(0.0, seconds))
        if task.done():
            return task.result()
    finally:
        task.cancel()
    raise RequestError(Code.DEADLINE_EXCEEDED, message)


async def end_task(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait until it has ended; again, if what it awaits swallows that."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
