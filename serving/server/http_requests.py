"""What both HTTP APIs read of a request: its body within bounds, its user, its time-out."""

import math
import time

from starlette.requests import Request

from serving.server.errors import Code, RequestError
from serving.server.waiting import wait_within

USER_HEADER = "x-user-key"
TIMEOUT_HEADER = "x-timeout-seconds"


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """Read the body of a request, but refuse it as soon as it is known to be too long.

    Args:
        request: The request.
        limit: Most bytes.
        deadline: By when it must have come, seconds of `time.monotonic`.

    Raises:
        RequestError: It is too long, or did not come in time.
        ClientDisconnect: The client left.
    """
    seconds = deadline - time.monotonic()
    return await wait_within(_read(request, limit), seconds, "the body did not come in time")


async def _read(request: Request, limit: int) -> bytes:
    error = RequestError(Code.TOO_LARGE, f"the body is longer than {limit} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:19]) > limit:
        raise error
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise error
        parts.append(part)
    return b"".join(parts)


def timeout_seconds(request: Request) -> float | None:
    """Return the time-out that a request asks for; None where it does not.

    Raises:
        RequestError: It is no number.
    """
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise RequestError(Code.INVALID_ARGUMENT, f"{TIMEOUT_HEADER} is not a number of seconds")
    return seconds


def deadline_of(arrived: float, longest_seconds: float, timeout: float | None) -> float:
    """Return the deadline of a request, in seconds of `time.monotonic`.

    A request may ask for a shorter time than the server's, not for a longer one.

    Args:
        arrived: When it came, in the same seconds.
        longest_seconds: The server's own time-out.
        timeout: Of the request; None takes the server's.

    Raises:
        RequestError: It has passed.
    """
    deadline = arrived + min(longest_seconds, longest_seconds if timeout is None else timeout)
    if not deadline > time.monotonic():
        raise RequestError(Code.DEADLINE_EXCEEDED, "the deadline has passed")
    return deadline
