"""A call that lets another go on: when that is, and what becomes of it where one of the two is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from proxy.begun import Begun, Turn, in_a_task
from tests.kit.waiting import bounded


def a_turn() -> Turn:
    return Turn(asyncio.get_running_loop())


class Scene:
    """Calls begun by callbacks of the event loop, and what they did, in order."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.told: list[str] = []
        self.ended: dict[str, asyncio.Event] = {}

    async def call(self, name: str, awaited: Awaitable[None], ends: tuple[Turn, ...] = ()) -> None:
        try:
            await awaited
            self.told.append(name)
            for turn in ends:
                turn.end()
            self.told.append(f"{name} is done")
        except asyncio.CancelledError:
            self.told.append(f"{name} is cancelled")
            raise
        finally:
            self.ended[name].set()

    async def begin(self, name: str, awaited: Awaitable[None], ends: tuple[Turn, ...] = ()) -> Begun:
        self.ended[name] = asyncio.Event()
        begun = Begun(self.call(name, awaited, ends), self.loop)
        has_begun = asyncio.Event()
        self.loop.call_soon(lambda: (begun.begin(), has_begun.set()))
        await bounded(has_begun.wait())
        return begun

    async def over(self) -> list[str]:
        for ended in self.ended.values():
            await bounded(ended.wait())
        return self.told


async def test_who_is_let_go_on_does_so_before_the_next_of_those_that_were_woken_together():
    scene, first, second = Scene(), asyncio.Event(), asyncio.Event()
    places = a_turn(), a_turn()
    await scene.begin("answer 1", first.wait(), (places[0],))
    await scene.begin("answer 2", second.wait(), (places[1],))
    await scene.begin("waiter 1", places[0])
    await scene.begin("waiter 2", places[1])
    first.set()
    second.set()
    assert await scene.over() == [
        "answer 1", "answer 1 is done", "waiter 1", "waiter 1 is done",
        "answer 2", "answer 2 is done", "waiter 2", "waiter 2 is done",
    ]  # fmt: skip


async def test_nobody_goes_on_within_another_ones_step_however_many_let_each_other_go_on():
    scene, begins = Scene(), asyncio.Event()
    turns = [a_turn() for _ in range(3000)]  # more than Python would nest
    await scene.begin("0", begins.wait(), (turns[0],))
    for number, turn in enumerate(turns, 1):
        await scene.begin(str(number), turn, tuple(turns[number : number + 1]))
    begins.set()
    told = await scene.over()
    assert told == [line for number in range(3001) for line in (str(number), f"{number} is done")]


async def test_those_behind_one_that_raises_go_on_all_the_same():
    scene, begins = Scene(), asyncio.Event()
    turns = a_turn(), a_turn(), a_turn()
    faults: list[object] = []
    scene.loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))

    async def raises() -> None:
        await turns[0]
        raise OSError("its own to catch")

    fault = Begun(raises(), scene.loop)
    scene.loop.call_soon(fault.begin)
    await scene.begin("second", turns[1])
    await scene.begin("third", turns[2])
    await scene.begin("first", begins.wait(), turns)
    begins.set()
    assert await scene.over() == [
        "first",
        "first is done",
        "second",
        "second is done",
        "third",
        "third is done",
    ]
    assert [str(each) for each in faults] == ["its own to catch"]


async def test_ended_from_outside_of_a_call_it_goes_on_in_a_later_turn():
    scene, turn = Scene(), a_turn()
    await scene.begin("call", turn)
    turn.end()
    turn.end()  # twice is once
    assert not scene.told
    assert await scene.over() == ["call", "call is done"]


async def test_what_is_over_already_is_not_waited_for():
    scene, turn = Scene(), a_turn()
    turn.end()
    await scene.begin("call", turn)
    assert scene.told == ["call", "call is done"]


async def test_cancelled_while_it_waits():
    scene, turn = Scene(), a_turn()
    call = await scene.begin("call", turn)
    call.cancel()
    assert not scene.told, "in a later turn, as a task"
    turn.end()  # too late: who does it must see what became of the call
    assert await scene.over() == ["call is cancelled"]


async def test_cancelled_by_the_call_that_has_let_it_go_on():
    scene, begins, turn = Scene(), asyncio.Event(), a_turn()
    second = await scene.begin("second", turn)

    async def first() -> None:
        await begins.wait()
        turn.end()
        second.cancel()

    scene.loop.call_soon(Begun(first(), scene.loop).begin)
    scene.loop.call_soon(begins.set)
    assert await scene.over() == ["second is cancelled"]


async def test_in_a_task_it_is_waited_for_as_a_future():
    scene, turn, other = Scene(), a_turn(), a_turn()

    async def waits() -> None:
        await in_a_task()
        await turn

    await scene.begin("call", waits(), (other,))
    await scene.begin("behind it", other)
    await asyncio.sleep(0)
    turn.end()
    assert await scene.over() == ["call", "call is done", "behind it", "behind it is done"]

    waiting = asyncio.create_task(waits())
    await bounded(waiting)  # it is over
    cancelled = asyncio.create_task(scene.call("task", a_turn()))
    scene.ended["task"] = asyncio.Event()
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert scene.told[-1] == "task is cancelled"


async def test_each_loop_has_steps_of_its_own():
    """While a step runs here, one of another loop, in another thread, lets a call of its own go on."""
    ran_in: list[int] = []

    async def elsewhere() -> None:
        scene, begins, turn = Scene(), asyncio.Event(), a_turn()

        async def notes_its_thread() -> None:
            await turn
            ran_in.append(threading.get_ident())

        await scene.begin("first", begins.wait(), (turn,))
        await scene.begin("second", notes_its_thread())
        begins.set()
        await scene.over()

    async def here() -> None:
        other = threading.Thread(target=asyncio.run, args=(elsewhere(),), daemon=True)
        other.start()
        other.join(timeout=60)
        ran_in.append(other.ident or 0)
        over.set()

    over = asyncio.Event()
    asyncio.get_running_loop().call_soon(Begun(here(), asyncio.get_running_loop()).begin)
    await bounded(over.wait())
    assert len(ran_in) == 2
    assert ran_in[0] == ran_in[1]
