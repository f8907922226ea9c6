"""A call that goes on without a task: what it waits for, how it is cancelled, how it gets one after all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from proxy.begun import Begun, in_a_task
from tests.kit.waiting import bounded


async def begun(call: Coroutine[Any, Any, None]) -> tuple[Begun, bool]:
    """Begin a call as a connection does: from the event loop, outside of any task."""
    loop = asyncio.get_running_loop()
    started = Begun(call, loop)
    waits: asyncio.Future[bool] = loop.create_future()
    loop.call_soon(lambda: waits.set_result(started.begin()))
    return started, await waits


async def a_turn() -> None:
    await asyncio.sleep(0)


class Story:
    """Notes what a call lives through."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.over = asyncio.Event()

    async def waits(self, *awaitables: Any) -> None:
        try:
            for each in awaitables:
                self.told.append(await each)
        except BaseException as error:
            self.told.append(type(error))
            raise
        finally:
            self.over.set()


async def test_what_waits_for_nothing_is_over_at_once():
    story = Story()
    _, waits = await begun(story.waits())
    assert not waits
    assert story.over.is_set()


async def test_it_goes_on_with_what_each_future_brings_without_a_task():
    story, loop = Story(), asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    tasks = asyncio.all_tasks()
    _, waits = await begun(story.waits(first, asyncio.sleep(0), second))
    assert waits
    first.set_result("one")
    second.set_result("two")
    await bounded(story.over.wait())
    assert story.told == ["one", None, "two"]
    assert asyncio.all_tasks() == tasks


async def test_a_future_that_failed_raises_where_it_is_awaited():
    future = asyncio.get_running_loop().create_future()

    async def call() -> None:
        with pytest.raises(OSError, match="no"):
            await future
        over.set()

    over = asyncio.Event()
    await begun(call())
    future.set_exception(OSError("no"))
    await bounded(over.wait())


async def test_cancelled_while_it_waits():
    story = Story()
    future = asyncio.get_running_loop().create_future()
    call, _ = await begun(story.waits(future))
    call.cancel()
    assert not story.told, "in a later turn, as a task"
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]
    assert future.cancelled()


async def test_cancelled_in_the_turn_in_which_it_would_have_gone_on():
    story, future = Story(), asyncio.get_running_loop().create_future()
    call, _ = await begun(story.waits(future))
    future.set_result("too late")
    call.cancel()
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]


async def test_cancelled_by_itself_it_ends_at_its_next_wait():
    story, calls = Story(), []

    async def itself() -> None:
        calls[0].cancel()
        await story.waits(asyncio.get_running_loop().create_future())

    future = asyncio.get_running_loop().create_future()

    async def call() -> None:
        await future
        await itself()

    started, _ = await begun(call())
    calls.append(started)
    future.set_result(None)
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]


async def test_what_it_awaits_while_it_is_cancelled_is_awaited():
    loop = asyncio.get_running_loop()
    future, last, over = loop.create_future(), loop.create_future(), asyncio.Event()

    async def call() -> None:
        try:
            await future
        finally:
            await last
            over.set()

    started, _ = await begun(call())
    started.cancel()
    await a_turn()
    await a_turn()
    assert not over.is_set()
    last.set_result(None)
    await bounded(over.wait())


async def test_cancelled_after_its_end_nothing_happens():
    story = Story()
    call, _ = await begun(story.waits(asyncio.sleep(0)))
    await bounded(story.over.wait())
    call.cancel()
    await a_turn()
    assert story.told == [None]


async def test_in_a_task_there_is_one_and_time_limits_hold():
    over = asyncio.Event()
    seen: list[object] = []

    async def call() -> None:
        assert asyncio.current_task() is None
        await in_a_task()
        seen.append(asyncio.current_task())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        await in_a_task()
        seen.append(asyncio.current_task())
        over.set()

    await begun(call())
    await bounded(over.wait())
    assert seen[0] is not None
    assert seen[0] is seen[1]


async def test_cancelled_on_the_way_into_its_task():
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    async def call() -> None:
        with pytest.raises(asyncio.CancelledError):
            await in_a_task()
        over.set()

    started = Begun(call(), loop)
    loop.call_soon(lambda: (started.begin(), started.cancel()))
    await bounded(over.wait())


async def test_cancelled_in_its_task():
    story = Story()

    async def call() -> None:
        await in_a_task()
        await story.waits(asyncio.get_running_loop().create_future())

    started, _ = await begun(call())
    await a_turn()
    assert started.in_a_task
    started.cancel()
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]


async def test_in_a_task_already_it_stays_in_it():
    async def call() -> asyncio.Task[Any] | None:
        await in_a_task()
        return asyncio.current_task()

    task = asyncio.create_task(call())
    assert await task is task
