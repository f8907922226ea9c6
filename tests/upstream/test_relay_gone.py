"""A caller who leaves costs nothing more: the upstream's connection is closed at once, in every phase."""

from __future__ import annotations

import asyncio

from proxy.core.verdict import Outcome
from proxy.upstream import Result
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.ports import stuck_port
from tests.kit.scripted import OK, Peer, Scripted, answering
from tests.kit.waiting import bounded, until


def gone(result: Result) -> bool:
    return result.gone and result.outcome is Outcome.IGNORED and result.reason is None


async def test_while_a_connection_is_opened():
    with stuck_port() as stuck:
        async with upstream_at(f"http://127.0.0.1:{stuck}") as upstream:
            caller = FakeCaller()
            asking = asyncio.create_task(ask(upstream, get(), caller))
            await until(lambda: caller.is_watched)
            assert upstream.pool.dialling == 1
            caller.leave()
            result, _ = await bounded(asking)
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert gone(result)


async def test_while_the_body_is_sent():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.left()
        closed.set()

    closed = asyncio.Event()
    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller([b"abc"], hangs=True)
        asking = asyncio.create_task(ask(upstream, post(None, length=1000), caller))
        await until(lambda: scripted.requests)
        caller.leave()
        result, _ = await bounded(asking)
        await bounded(closed.wait())
    assert gone(result)


async def test_while_the_answer_is_awaited():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.left()
        closed.set()

    closed = asyncio.Event()
    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, post(), caller))
        await until(lambda: scripted.requests)
        caller.leave()
        result, _ = await bounded(asking)
        await bounded(closed.wait())
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert gone(result)


async def test_while_the_answer_streams():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await peer.left()
        closed.set()

    closed = asyncio.Event()
    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, post(), caller))
        await caller.has(b"ab")
        caller.leave()
        result, _ = await bounded(asking)
        await bounded(closed.wait())
    assert gone(result)
    assert (result.started, result.complete, caller.ended) == (True, False, False)


async def test_before_anything_was_sent():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        caller.is_gone = True
        result, _ = await ask(upstream, post(), caller)
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
        assert not scripted.requests
    assert gone(result)


async def test_a_caller_that_leaves_after_its_answer_closes_nobody_elses_connection():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        _, caller = await ask(upstream, get())
        caller.leave()
        result, _ = await ask(upstream, get())
    assert result.reused


async def test_a_caller_that_stalls_is_given_up_although_the_upstream_has_closed_meanwhile():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")

    async with Scripted(script) as scripted, upstream_at(scripted.url, idle_s=0.05) as upstream:
        caller = FakeCaller()
        caller.taking.clear()
        result, _ = await bounded(ask(upstream, get(), caller))
    assert gone(result)
