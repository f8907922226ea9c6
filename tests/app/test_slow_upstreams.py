"""What a breaker takes for slowness: how long its upstream was silent. Never how slow a caller is, nor how
long an answer lasts.

The clock of all decisions is turned by hand: a minute passes between two bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.app.watching import by_hand, phase
from tests.kit.bench import OK, POST, Bench, bench_with
from tests.kit.clock import ManualClock
from tests.kit.raw import Raw, head
from tests.kit.scripted import Peer
from tests.kit.waiting import settled, until

CALLERS = 20
"""As many as `minimum_calls`."""

TOO_LONG_S = 61.0
"""Longer than `slow_call`."""

LARGE = 8_000_000
"""Bytes of an answer: more than fits between the upstream and a caller that reads nothing."""

HALF = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"b\r\ndata: one\n\n\r\n"


@asynccontextmanager
async def callers_of(
    breaker: str = "{}", *, count: int = CALLERS
) -> AsyncIterator[tuple[Bench, ManualClock, list[Raw]]]:
    """A proxy, whose breaker is as it is by default, its clock, and so many callers."""
    room = "concurrency: 64"  # for all at once, from the start
    async with bench_with(breaker=breaker, upstream=room) as bench, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(bench.connect()) for _ in range(count)]
        yield bench, by_hand(bench.proxy), callers


def slow_calls(bench: Bench) -> tuple[int, int, str]:
    """Calls in the breaker's window, the slow ones among them, and its phase."""
    (breaker,) = bench.proxy.proxy.state().breakers
    return breaker.calls, round(breaker.calls * breaker.slow_ratio), phase(bench.proxy, "up")


@pytest.mark.parametrize("ends", ["taken", "left"])
async def test_callers_that_stall_amid_their_answers_say_nothing_of_the_upstream(ends: str):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HALF)
        for _ in range(LARGE // 50_000):
            await peer.send(b"a" * 50_000)

    async with callers_of("{minimum_calls: 4}", count=4) as (bench, clock, callers):
        bench.play(script)
        for raw in callers:
            await raw.send(POST)
        await until(lambda: len(bench.heard) == 4)
        assert await settled(lambda: bench.in_flight) == 4, "none of them takes all of its answer"
        clock.advance(TOO_LONG_S)
        if ends == "left":
            for raw in callers:
                raw.leave()
        else:
            assert [len((await raw.reply()).body) for raw in callers] == [LARGE] * 4
        await until(lambda: bench.in_flight == 0)
        assert slow_calls(bench) == (4 if ends == "taken" else 0, 0, "closed")


async def test_a_stream_of_events_may_last_for_minutes():
    goes_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS + EVENT)
        await goes_on.wait()
        await peer.send(EVENT + b"0\r\n\r\n")

    async with callers_of() as (bench, clock, callers):
        bench.play(script)
        for raw in callers:
            await raw.send(POST)
        for raw in callers:
            await raw.reader.readuntil(b"one")
        clock.advance(5 * TOO_LONG_S)
        goes_on.set()
        for raw in callers:
            await raw.reader.readuntil(b"0\r\n\r\n")
        await until(lambda: bench.in_flight == 0)
        assert slow_calls(bench) == (CALLERS, 0, "closed")


async def test_callers_that_send_their_bodies_slowly_say_nothing_of_the_upstream():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    request = head("POST", "/x", content_length="10")
    async with callers_of() as (bench, clock, callers):
        bench.play(script)
        for raw in callers:
            await raw.send(request + b"half.")
        await until(lambda: len(bench.heard) == CALLERS)
        clock.advance(TOO_LONG_S)
        for raw in callers[1:]:
            await raw.send(b"half.")
            assert (await raw.reply()).status == 200
        callers[0].leave()
        await until(lambda: bench.in_flight == 0)
        assert slow_calls(bench) == (CALLERS - 1, 0, "closed")


async def test_answers_that_begin_late_open_it():
    goes_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await goes_on.wait()
        await peer.send(OK)

    async with callers_of() as (bench, clock, callers):
        bench.play(script)
        for raw in callers:
            await raw.send(POST)
        await until(lambda: len(bench.heard) == CALLERS)
        clock.advance(TOO_LONG_S)
        goes_on.set()
        assert [(await raw.reply()).status for raw in callers] == [200] * CALLERS
        await until(lambda: bench.in_flight == 0)
        (moved,) = [line for line in bench.proxy.lines() if line["event"] == "breaker_moved"]
        # The clock jumps: that nobody was answered may be seen before the late answers are counted.
        assert moved["detail"].startswith(("20 of 20 calls waited 60s", "no answer to anybody"))
        async with bench.connect() as raw:
            await raw.send(POST)
            assert (await raw.reply()).headers["x-backpressure-reason"] == "breaker_open"


@pytest.mark.parametrize("patience_s", [TOO_LONG_S, 10.0])
async def test_callers_that_wait_in_vain_open_it_if_they_waited_long_enough(patience_s: float):
    """Else an upstream that hangs for longer than any caller's patience would never count as down."""
    async with callers_of() as (bench, clock, callers):
        bench.play(hang)
        for raw in callers:
            await raw.send(POST)
        await until(lambda: len(bench.heard) == CALLERS)
        clock.advance(patience_s)
        for raw in callers:
            raw.leave()
        await until(lambda: bench.in_flight == 0)
        assert phase(bench.proxy, "up") == ("open" if patience_s == TOO_LONG_S else "closed")


async def hang(peer: Peer) -> None:
    await peer.request()
    await peer.left()


async def test_time_in_the_queue_is_not_the_upstreams():
    goes_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS + EVENT)
        await goes_on.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.request()
        await peer.send(OK)

    queue = "queue: {size: 1, max_age: 90s}"
    async with bench_with(breaker="{}", upstream="concurrency: 1", route=queue) as bench:
        clock = by_hand(bench.proxy)
        bench.play(script)
        async with bench.connect() as first, bench.connect() as second:
            await first.send(POST)
            await first.reader.readuntil(b"one")
            await second.send(POST)
            await until(lambda: sum(lane.depth for lane in bench.proxy.proxy.state().lanes) == 1)
            clock.advance(TOO_LONG_S)
            goes_on.set()
            assert (await second.reply()).status == 200
        await until(lambda: bench.in_flight == 0)
        assert slow_calls(bench) == (2, 0, "closed")
