"""A call that goes on without a task: what it waits for, how it is cancelled, how it gets one after all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from proxy.begun import Begun, Signal, in_a_task
from tests.kit.waiting import bounded

SEEN: ContextVar[str] = ContextVar("seen", default="nobody's")


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


# ── signals ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_signal_fired_now_has_the_call_go_on_before_it_returns():
    story, signal = Story(), Signal(asyncio.get_running_loop())
    await begun(story.waits(signal))
    signal.fire_now()
    assert story.told == [None]


async def test_a_signal_fired_has_the_call_go_on_in_the_next_turn():
    story, signal = Story(), Signal(asyncio.get_running_loop())
    await begun(story.waits(signal))
    signal.fire()
    assert not story.told
    await a_turn()
    assert story.told == [None]


async def test_a_signal_that_is_fired_already_is_not_waited_for():
    story, signal = Story(), Signal(asyncio.get_running_loop())
    signal.fire()
    _, waits = await begun(story.waits(signal))
    assert not waits
    assert story.told == [None]


async def test_a_signal_fired_twice_wakes_once():
    loop = asyncio.get_running_loop()
    story, signal, other = Story(), Signal(loop), loop.create_future()
    await begun(story.waits(signal, other))
    signal.fire()
    signal.fire()
    signal.fire_now()
    assert not story.told, "it was told to go on in the next turn"
    await a_turn()
    await a_turn()
    assert story.told == [None], "the second wait has not ended"
    other.set_result(2)
    await bounded(story.over.wait())
    assert story.told == [None, 2]


@pytest.mark.parametrize("fires", [Signal.fire, Signal.fire_now])
async def test_a_task_goes_on_in_its_own_context_in_the_next_turn(fires: Callable[[Signal], None]):
    story, signal = Story(), Signal(asyncio.get_running_loop())

    async def call() -> None:
        SEEN.set("the task's")
        await story.waits(signal)
        story.told.append(SEEN.get())

    task = asyncio.create_task(call())
    await a_turn()
    fires(signal)
    assert not story.told
    await bounded(task)
    assert story.told == [None, "the task's"]


@pytest.mark.parametrize("in_task", [False, True])
async def test_cancelled_while_it_waits_for_a_signal(in_task: bool):
    story, signal = Story(), Signal(asyncio.get_running_loop())
    call: Begun | asyncio.Task[None]
    if in_task:
        call = asyncio.create_task(story.waits(signal))
        await a_turn()
    else:
        call, _ = await begun(story.waits(signal))
    call.cancel()
    assert not story.told, "in a later turn, as for a future"
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]


@pytest.mark.parametrize("in_task", [False, True])
async def test_cancelled_in_the_turn_in_which_a_signal_was_fired(in_task: bool):
    story, signal = Story(), Signal(asyncio.get_running_loop())
    call: Begun | asyncio.Task[None]
    if in_task:
        call = asyncio.create_task(story.waits(signal))
        await a_turn()
    else:
        call, _ = await begun(story.waits(signal))
    signal.fire()
    call.cancel()
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]


async def test_a_signal_fired_after_its_call_was_cancelled_is_nothing():
    story, signal = Story(), Signal(asyncio.get_running_loop())
    call, _ = await begun(story.waits(signal))
    call.cancel()
    signal.fire_now()
    await bounded(story.over.wait())
    assert story.told == [asyncio.CancelledError]
