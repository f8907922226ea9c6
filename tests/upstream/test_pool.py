"""Connections are kept for as long as is worth it, and no dead one is used again."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from proxy.core.verdict import Outcome, Reason
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.ports import dead_port
from tests.kit.scripted import OK, Peer, Scripted, answering, saying, silent
from tests.kit.scripted_h2 import slowly
from tests.kit.waiting import bounded, until


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
    async with Scripted(saying(OK)) as scripted, upstream_at(scripted.url) as upstream:
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
    async with Scripted(silent) as scripted, upstream_at(scripted.url) as upstream:
        asking = asyncio.create_task(ask(upstream, get(), FakeCaller()))
        await until(lambda: scripted.requests)
        upstream.abort()
        result, _ = await bounded(asking)
    assert (result.complete, result.gone) == (False, False)


# ── the most that may be open ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("http2", [False, True])
async def test_who_finds_no_room_waits_for_a_connection_and_opens_none(http2: bool):
    go_on = asyncio.Event()
    async with slowly(go_on, http2=http2) as scripted:
        async with upstream_at(scripted.url, max_connections=2, http2=http2) as upstream:
            asking = [asyncio.create_task(ask(upstream, get())) for _ in range(5)]
            await until(lambda: scripted.connections == 2 and len(upstream.pool._waiting) == 3)
            go_on.set()
            results = [result for result, _ in await bounded(asyncio.gather(*asking))]
            assert repr(upstream.pool) == "<Pool 0 in use, 2 idle>"
    assert all(result.complete for result in results)
    assert scripted.connections == 2


@pytest.mark.parametrize("http2", [False, True])
async def test_who_finds_no_room_in_time_says_nothing_about_the_upstream(http2: bool):
    go_on = asyncio.Event()
    async with slowly(go_on, http2=http2) as scripted:
        async with upstream_at(scripted.url, max_connections=1, connect_s=0.03, http2=http2) as upstream:
            first = asyncio.create_task(ask(upstream, get()))
            await until(lambda: upstream.pool.in_use)
            result, _ = await ask(upstream, get())
            go_on.set()
            await first
    assert (result.outcome, result.reason) == (Outcome.UNUSED, Reason.UPSTREAM_FAILED)
    assert result.detail == "every connection that is allowed is in use"


@pytest.mark.parametrize("http2", [False, True])
async def test_room_that_a_leaving_caller_was_told_of_is_the_next_ones(http2: bool):
    go_on = asyncio.Event()
    async with slowly(go_on, http2=http2) as scripted:
        async with upstream_at(scripted.url, max_connections=1, idle_for_s=60, http2=http2) as upstream:
            first = asyncio.create_task(ask(upstream, get()))
            await until(lambda: upstream.pool.in_use)
            leaving = FakeCaller()
            second = asyncio.create_task(ask(upstream, get(), leaving))
            await until(lambda: len(upstream.pool._waiting) == 1)
            third = asyncio.create_task(ask(upstream, get()))
            await until(lambda: len(upstream.pool._waiting) == 2)
            waiter = upstream.pool._waiting[0]
            waiter.add_done_callback(lambda _: leaving.leave())
            go_on.set()
            results = [(await bounded(call))[0] for call in (first, second, third)]
    assert [result.complete for result in results] == [True, False, True]
    assert results[1].gone


async def test_a_connection_that_fails_to_open_makes_room():
    async with upstream_at(f"http://127.0.0.1:{dead_port()}", max_connections=1) as upstream:
        results = await bounded(asyncio.gather(*(ask(upstream, get()) for _ in range(3))))
        assert not upstream.pool._waiting
    assert {result.detail for result, _ in results} == {"connection refused"}


async def test_room_that_was_told_to_one_who_is_cancelled_then_is_told_to_the_next():
    async with Scripted(answering(OK)) as scripted:
        async with upstream_at(scripted.url, max_connections=1, idle_for_s=60) as upstream:
            await ask(upstream, get())
            pool = upstream.pool
            connection = pool.take()
            first, second = (asyncio.create_task(pool.room()) for _ in range(2))
            await until(lambda: len(pool._waiting) == 2)
            pool.release(connection)
            first.cancel()
            assert await bounded(second) is connection
            connection.close()
