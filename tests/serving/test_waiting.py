"""A cancellation is never lost, however it meets the end of what is waited for."""

import asyncio

import pytest

from serving.server.errors import Code, RequestError
from serving.server.waiting import end_task, wait_within


def test_a_cancellation_as_the_wait_ends_is_kept():
    """asyncio.wait_for loses it, before Python 3.12."""

    async def main():
        answer = asyncio.get_running_loop().create_future()
        went_on = []

        async def work():
            await wait_within(answer, 60, "late")
            went_on.append(1)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        answer.set_result(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not went_on

    asyncio.run(main())


def test_what_takes_too_long_is_cancelled_and_an_error():
    async def main():
        ended = []

        async def slow():
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(1)

        with pytest.raises(RequestError, match="late") as caught:
            await wait_within(slow(), 0.01, "late")
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        await asyncio.sleep(0)
        assert ended
        with pytest.raises(KeyError):
            await wait_within(failing(), 60, "late")
        assert await wait_within(asyncio.sleep(0, "done"), 60, "late") == "done"

    async def failing():
        raise KeyError("x")

    asyncio.run(main())


def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same():
    async def main():
        async def stubborn():
            for _ in range(2):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if _:
                        raise

        task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0.01)
        await asyncio.wait({asyncio.ensure_future(end_task(task))}, timeout=20)
        assert task.done()

    asyncio.run(main())
