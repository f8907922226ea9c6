"""How long an upstream let a call wait: to connect, and from the request sent to the head of its answer."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.clock import ManualClock
from tests.kit.ports import stuck_port
from tests.kit.scripted import OK, Peer, Scripted, answering
from tests.kit.waiting import bounded, until


@pytest.mark.parametrize("http2", [False, True])
async def test_a_connection_that_does_not_open_is_silence(http2: bool):
    clock = ManualClock()
    with stuck_port() as stuck:
        async with upstream_at(f"http://127.0.0.1:{stuck}", http2=http2) as upstream:
            caller = FakeCaller()
            asking = asyncio.create_task(ask(upstream, get(), caller, clock=clock))
            await until(lambda: upstream.pool.dialling == 1)
            clock.advance(3.0)
            caller.leave()
            result, _ = await bounded(asking)
    assert result.silent_s == 3.0


async def test_to_wait_for_room_in_our_own_pool_is_not():
    clock, asked, answer = ManualClock(), asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await answer.wait()
        await peer.send(OK)
        await answering(OK)(peer)

    async with Scripted(script) as scripted, upstream_at(scripted.url, max_connections=1) as upstream:
        first = asyncio.create_task(ask(upstream, get(), clock=clock))
        await bounded(asked.wait())
        caller = FakeCaller()
        second = asyncio.create_task(ask(upstream, get(), caller, clock=clock))
        await until(lambda: caller.is_watched)
        clock.advance(3.0)
        answer.set()
        assert (await bounded(first))[0].silent_s == 3.0
        assert (await bounded(second))[0].silent_s == 0.0


async def test_the_head_ends_it_and_what_follows_does_not_count():
    clock, asked, go_on = ManualClock(), asyncio.Event(), asyncio.Queue[None]()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go_on.get()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha")
        await go_on.get()
        await peer.send(b"lf")

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, post(), caller, clock=clock))
        await bounded(asked.wait())
        clock.advance(2.0)
        go_on.put_nowait(None)
        await caller.has(b"ha")
        clock.advance(50.0)
        go_on.put_nowait(None)
        result, _ = await bounded(asking)
    assert (result.complete, result.silent_s) == (True, 2.0)


async def test_a_body_that_its_caller_has_not_sent_is_not_waited_for_by_the_upstream():
    clock = ManualClock()
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller([b"half"], hangs=True)
        asking = asyncio.create_task(ask(upstream, post(None, length=8), caller, clock=clock))
        await until(lambda: scripted.requests)
        clock.advance(30.0)
        caller.leave()
        result, _ = await bounded(asking)
    assert (result.gone, result.silent_s) == (True, 0.0)
