"""A call that is cancelled at any of its awaits on the way through a retry of ours leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.app.retrying import (
    AT_LENGTH,
    AT_ONCE,
    BUSY,
    MANY,
    Case,
    ask,
    retrying,
)
from tests.app.test_cancellation import LATE, MOST_SUSPENSIONS, Arming
from tests.app.watching import assert_nothing_is_held, waiting
from tests.kit.raw import connect, head
from tests.kit.scripted import OK, Peer
from tests.kit.waiting import bounded, until


async def everywhere(
    case: Case, late: bool, meanwhile: Callable[[Arming], Awaitable[None]] | None = None
) -> int:
    """Cancel one call after another, each one suspension further; how many places there were.

    Each asks for another path: what repeats a call that failed is a retry of its caller's.
    """
    arming = Arming(case.proxy)
    for number in range(1, MOST_SUSPENSIONS):
        async with connect(case.proxy.url) as raw:
            arming.next_call(number, late=late)
            await raw.send(head("GET", f"/x{number}"))
            if meanwhile is not None:
                await meanwhile(arming)
            await bounded(arming.ended.wait())
        await assert_nothing_is_held(case.proxy)
        assert not case.pauses
        assert arming.cancelled is not None
        if not arming.cancelled.happened:
            return number - 1
    raise AssertionError("a call that is suspended for ever")


@LATE
@pytest.mark.parametrize("failing", [BUSY, b""], ids=["held answer", "no answer"])
async def test_a_call_that_is_cancelled_anywhere_on_its_way_through_a_retry(failing, late):
    async def serves(peer: Peer) -> None:
        while True:
            heard = await peer.request()
            seen.append(heard.line)
            if seen.count(heard.line) > 1:
                await peer.send(OK)
            elif failing:
                await peer.send(failing)
            else:
                return

    seen: list[bytes] = []
    async with retrying(serves, AT_ONCE, upstream=MANY + ", connections: {idle_for: 0s}") as case:
        assert await everywhere(case, late) >= 3, "two exchanges and a pause"
        assert (await ask(case)).status == 200
        assert (await case.results())["succeeded"] == 2, (
            "the one that ended before it was cancelled, and this"
        )


@LATE
async def test_a_call_that_is_cancelled_while_its_retry_waits_for_room(late):
    async def serves(peer: Peer) -> None:
        while True:
            heard = await peer.request()
            seen.append(heard.line)
            if b"/hold" in heard.line:
                await bounded(let_go.wait())
            await peer.send(BUSY if b"/x" in heard.line and seen.count(heard.line) == 1 else OK)

    async def meanwhile(arming: Arming) -> None:
        let_go.clear()
        await until(lambda: case.pauses or arming.ended.is_set())
        async with connect(case.proxy.url) as holder:
            held = len(seen)
            await holder.send(head("GET", "/hold"))
            await until(lambda: len(seen) > held)
            case.go_on()
            await until(lambda: waiting(case.proxy, "api") or arming.ended.is_set())
            let_go.set()
            assert (await holder.reply()).status == 200

    seen: list[bytes] = []
    let_go = asyncio.Event()
    async with retrying(serves, AT_LENGTH, upstream=MANY) as case:
        assert await everywhere(case, late, meanwhile) >= 4, "two exchanges, a pause and the queue"
