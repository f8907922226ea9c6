"""Retries of our own that end early: a caller that leaves, in the pause or in the queue, and a drain."""

from __future__ import annotations

import asyncio

from tests.app.retrying import (
    AT_LENGTH,
    BUSY,
    GET,
    ONE,
    retrying,
)
from tests.app.watching import assert_nothing_is_held, waiting
from tests.kit.raw import connect
from tests.kit.scripted import OK, Peer, answering
from tests.kit.waiting import bounded, until


async def test_a_caller_that_leaves_in_the_pause_ends_it_at_once_and_costs_nothing():
    async with retrying(answering(BUSY, OK), AT_LENGTH, upstream=ONE) as case:
        async with connect(case.proxy.url) as raw:
            await raw.send(GET)
            await case.pausing()
            raw.leave()
            await until(lambda: not case.pauses)
        await assert_nothing_is_held(case.proxy)
        assert case.heard == 1
        assert await case.results() == {"left": 1}
        (budget,) = case.proxy.proxy.state().retry_budgets
        assert budget.balance == 1.0
        assert len(case.proxy.proxy._repeats) == 1, "should it come back, it is a retry"


async def test_a_caller_that_leaves_while_its_retry_waits_for_room_costs_nothing():
    held = asyncio.Event()

    async def serves(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(BUSY.replace(b"x-which", b"connection: close\r\nx-which"))
        else:
            await bounded(held.wait())
            await peer.send(OK)

    async with retrying(serves, AT_LENGTH, upstream=ONE + ", concurrency: 1") as case:
        async with connect(case.proxy.url) as raw, connect(case.proxy.url) as holder:
            await raw.send(GET)
            await case.pausing()
            await holder.send(GET)
            await until(lambda: case.heard == 2)
            case.go_on()
            await until(lambda: waiting(case.proxy, "api") == 1)
            raw.leave()
            await until(lambda: waiting(case.proxy, "api") == 0)
            held.set()
            assert (await holder.reply()).status == 200
        assert await case.results() == {"left": 1}
        (budget,) = case.proxy.proxy.state().retry_budgets
        assert budget.balance == 1.0
        assert len(case.proxy.proxy._repeats) == 1


async def test_a_drain_ends_the_pause_and_the_caller_is_told_the_first_answer():
    async with retrying(answering(BUSY, OK), AT_LENGTH) as case, connect(case.proxy.url) as raw:
        await raw.send(GET)
        await case.pausing()
        case.proxy.proxy.drain()
        reply = await raw.reply()
        assert (reply.status, reply.body) == (503, b"busy")
        await bounded(case.proxy.proxy.idle())
        assert case.heard == 1
        assert await case.results() == {"refused": 1}


async def test_while_it_drains_nothing_is_repeated():
    async def serves(peer: Peer) -> None:
        await peer.request()
        await bounded(draining.wait())
        await peer.send(BUSY)

    draining = asyncio.Event()
    async with retrying(serves, AT_LENGTH) as case, connect(case.proxy.url) as raw:
        await raw.send(GET)
        await until(lambda: case.heard == 1)
        case.proxy.proxy.drain()
        draining.set()
        assert (await raw.reply()).status == 503
        assert await case.results() == {"given_up": 1}
