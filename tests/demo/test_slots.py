"""The line for a slot, without sockets: each connection is real but for its transport, which is not used."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo.slots import Slots
from proxy.demo.wire import CallerLeftError, Connection


class Line:
    def __init__(self, count: int) -> None:
        self.count = count
        self.slots = Slots(lambda: self.count)
        self.served: list[str] = []
        self.connections: dict[str, Connection] = {}
        self.calls: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str) -> None:
        connection = self.connections[name] = Connection(None)  # type: ignore[arg-type]

        async def call() -> None:
            await self.slots.take(connection)
            self.served.append(name)

        self.calls[name] = asyncio.create_task(call())
        await self.settled()

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_slots_are_given_in_order_of_arrival():
    line = Line(2)
    for name in "abcde":
        await line.comes(name)
    assert line.served == ["a", "b"]
    for _ in range(3):
        line.slots.give()
        await line.settled()
    assert line.served == ["a", "b", "c", "d", "e"]
    assert (line.slots.taken, line.slots.waiting) == (2, 0)


async def test_a_newcomer_does_not_pass_those_who_wait():
    line = Line(1)
    await line.comes("a")
    await line.comes("b")
    line.count = 2
    await line.comes("c")
    assert line.served == ["a", "b"]
    line.count = 3
    await line.comes("d")
    assert line.served == ["a", "b", "c"]


async def test_more_slots_serve_more_at_once_and_fewer_let_holders_finish():
    line = Line(1)
    for name in "abcd":
        await line.comes(name)
    line.count = 3
    line.slots.offer()
    await line.settled()
    assert line.served == ["a", "b", "c"]
    line.count = 1
    line.slots.give()
    line.slots.give()
    await line.settled()
    assert line.served == ["a", "b", "c"]
    line.slots.give()
    await line.settled()
    assert line.served == ["a", "b", "c", "d"]


async def test_a_caller_who_leaves_keeps_no_place():
    line = Line(1)
    for name in "abc":
        await line.comes(name)
    line.connections["b"].end()
    line.slots.give()
    await line.settled()
    assert line.served == ["a", "c"]
    with pytest.raises(CallerLeftError):
        await line.calls["b"]
    assert (line.slots.taken, line.slots.waiting) == (1, 0)


async def test_a_call_cancelled_as_it_is_granted_gives_its_slot_on():
    line = Line(1)
    for name in "abc":
        await line.comes(name)
    line.slots.give()
    line.calls["b"].cancel()
    await line.settled()
    assert line.served == ["a", "c"]
    assert (line.slots.taken, line.slots.waiting) == (1, 0)
