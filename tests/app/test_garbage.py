"""What has ended leaves nothing for the garbage collector.

Its last generation is hardly ever looked at (`proxy/memory.py`): two objects that hold each other and live
for a few seconds are there for hours, and for each call or caller that is a leak.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from proxy.demo import Behaviour, Cut, Hang, Ok, Refuse
from tests.app.watching import in_flight, waiting
from tests.kit.garbage import garbage
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import Running, before_demo
from tests.kit.waiting import bounded, until

PATH = "/openai/v1/chat/completions"
CALL = head("POST", PATH, content_length=str(len(CHAT))) + CHAT
STREAMED = CHAT[:-1] + b',"stream":true}'
STREAM = head("POST", PATH, content_length=str(len(STREAMED))) + STREAMED
UPLOAD = head("POST", PATH, content_length="400000")

Call = Callable[[Running], Awaitable[None]]


async def is_served(proxy: Running) -> None:
    async with connect(proxy.url) as caller:
        assert (await caller.post(PATH)).status == 200
        assert (await caller.post(PATH)).status == 200


async def is_streamed(proxy: Running) -> None:
    async with connect(proxy.url) as caller:
        await caller.send(STREAM)
        assert (await caller.reply()).status == 200


async def is_no_request(proxy: Running) -> None:
    async with connect(proxy.url) as caller:
        await caller.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await caller.reply()).status == 400


async def is_refused_upstream(proxy: Running) -> None:
    proxy.upstream.behaviour.mode = Refuse()
    async with connect(proxy.url) as caller:
        assert (await caller.post(PATH)).status == 429


async def is_cut_upstream(proxy: Running) -> None:
    proxy.upstream.behaviour.mode = Cut()
    async with connect(proxy.url) as caller:
        await caller.send(STREAM)
        await bounded(caller.reader.read())


async def leaves_in_its_upload(proxy: Running) -> None:
    async with connect(proxy.url) as caller:
        await caller.send(UPLOAD + bytes(100_000))
        await until(lambda: in_flight(proxy) == 1)
        caller.leave()


async def leaves_while_it_is_served(proxy: Running) -> None:
    proxy.upstream.behaviour.mode = Hang()
    ledger = proxy.upstream.ledger
    async with connect(proxy.url) as caller:
        await caller.send(CALL)
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        caller.leave()


async def leaves_in_its_stream(proxy: Running) -> None:
    async with connect(proxy.url) as caller:
        await caller.send(STREAM)
        await bounded(caller.reader.readuntil(b"\r\n\r\n"))
        caller.leave()


async def waits_leaves_and_is_refused(proxy: Running) -> None:
    """One is served, one waits until it is, one leaves, and one finds the queue full."""
    proxy.upstream.behaviour.mode = Hang()
    ledger = proxy.upstream.ledger
    async with (
        connect(proxy.url) as holder,
        connect(proxy.url) as waiter,
        connect(proxy.url) as leaver,
        connect(proxy.url) as late,
    ):
        await holder.send(CALL)
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        await waiter.send(CALL)
        await until(lambda: waiting(proxy) == 1)
        await leaver.send(CALL)
        await until(lambda: waiting(proxy) == 2)
        assert (await late.post(PATH)).status == 429
        leaver.leave()
        await until(lambda: waiting(proxy) == 1)
        proxy.upstream.behaviour.mode = Ok()
        assert (await holder.reply()).status == (await waiter.reply()).status == 200


@pytest.mark.parametrize(
    "call",
    [
        is_served,
        is_streamed,
        is_no_request,
        is_refused_upstream,
        is_cut_upstream,
        leaves_in_its_upload,
        leaves_while_it_is_served,
        leaves_in_its_stream,
        waits_leaves_and_is_refused,
    ],
)
async def test_what_ends_leaves_nothing_to_collect(call: Call) -> None:
    behaviour = Behaviour(latency_s=0.0, stream_events=50, event_gap_s=0.001)
    upstream = "concurrency: 1\nbreaker: off"
    async with before_demo(behaviour, upstream=upstream, route="queue: {size: 2}") as proxy:

        async def ended() -> None:
            behaviour.mode = Ok()
            await call(proxy)
            await until(lambda: not in_flight(proxy))

        await ended()  # the first brings what lasts
        with garbage() as found:
            for _ in range(3):
                await ended()
    assert found == {}
