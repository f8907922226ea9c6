"""Connections are kept for as long as is worth it, and no dead one is used again."""

from __future__ import annotations

import asyncio
import os
import socket

from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.scripted import OK, Peer, Scripted, answering, bounded, until


async def test_the_connection_used_last_is_used_first():
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            heard = await peer.request()
            if b"wait" in heard.line:
                await go_on.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % peer.number)

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        slow = asyncio.create_task(ask(upstream, get(b"/wait")))
        await until(lambda: scripted.requests)
        _, second = await ask(upstream, get())
        go_on.set()
        _, first = await slow
        assert repr(upstream) == "<Upstream demo: 0 in use, 2 idle>"
        _, third = await ask(upstream, get())
    assert (first.body, second.body, third.body) == (b"0", b"1", b"0")


async def test_a_connection_whose_end_has_arrived_is_not_taken():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        for body in (b"1", b"2", b"3"):
            result, _ = await ask(upstream, post(body))
            assert result.complete
            await until(lambda: not upstream.pool.idle)
    assert [heard.body for heard in scripted.requests] == [b"1", b"2", b"3"]


async def test_the_end_of_a_connection_is_seen_before_the_event_loop_hands_it_over():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        await ask(upstream, post(b"1"))
        file = scripted.peers[0].writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(file)) as sock:
            sock.shutdown(socket.SHUT_WR)  # at once, without a turn of the event loop
        result, _ = await ask(upstream, post(b"2"))
    assert (result.complete, result.reused) == (True, False)


async def test_an_idle_connection_is_closed_when_its_time_is_over():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.left()
        closed.set()

    closed = asyncio.Event()
    async with Scripted(script) as scripted, upstream_at(scripted.url, idle_for_s=0.02) as upstream:
        await ask(upstream, get())
        assert upstream.pool.idle == 1
        await bounded(closed.wait())
        assert upstream.pool.idle == 0


async def test_a_connection_that_is_too_old_is_not_taken_even_before_it_is_closed():
    now = 0.0
    async with (
        Scripted(answering(OK)) as scripted,
        upstream_at(scripted.url, idle_for_s=10, clock=lambda: now) as upstream,
    ):
        await ask(upstream, get())
        now = 9.0
        young, _ = await ask(upstream, get())
        now = 19.0
        old, _ = await ask(upstream, get())
    assert (young.reused, old.reused) == (True, False)


async def test_with_no_idle_time_every_call_has_its_own_connection():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url, idle_for_s=0) as upstream:
        for _ in range(3):
            result, _ = await ask(upstream, get())
            assert (result.complete, result.reused) == (True, False)
        assert upstream.pool.idle == 0


async def test_closing_waits_for_the_calls_that_run():
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            heard = await peer.request()
            if b"wait" in heard.line:
                await go_on.wait()
            await peer.send(OK)

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        slow = asyncio.create_task(ask(upstream, get(b"/wait")))
        await until(lambda: scripted.requests)
        await ask(upstream, get())
        closing = asyncio.create_task(upstream.aclose())
        await until(lambda: not upstream.pool.idle)
        assert not closing.done()
        go_on.set()
        result, _ = await slow
        await bounded(closing)
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert result.complete


async def test_a_call_that_comes_after_closing_is_served_and_leaves_nothing_open():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        await upstream.aclose()
        result, _ = await ask(upstream, get())
        await upstream.aclose()
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert result.complete


async def test_aborting_cuts_what_runs():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.left()

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        asking = asyncio.create_task(ask(upstream, get(), FakeCaller()))
        await until(lambda: scripted.requests)
        upstream.abort()
        result, _ = await bounded(asking)
    assert (result.complete, result.gone) == (False, False)
