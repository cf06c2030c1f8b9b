"""Waiting for an event and for a time."""

from __future__ import annotations

import asyncio
import time

from lbcore.waiting import set_within


async def test_an_event_that_is_set_ends_the_wait() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await set_within(event, None)
    assert await set_within(event, 60.0)


async def test_without_it_the_wait_takes_as_long_as_was_said_and_leaves_no_task() -> None:
    assert not await set_within(asyncio.Event(), 0.01)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancellation_in_the_moment_in_which_the_time_is_over_is_not_lost() -> None:
    async def for_ever() -> None:
        while True:
            await set_within(asyncio.Event(), 0.01)

    task = asyncio.ensure_future(for_ever())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.02, task.cancel)
    time.sleep(0.1)  # noqa: ASYNC251 - so both are due in the same turn of the event loop, the time first
    done, _ = await asyncio.wait([task], timeout=30)
    assert done
    assert task.cancelled()
