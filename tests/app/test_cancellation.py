"""A call cancelled at any of its awaits leaves nothing behind: no permit, no place, no sum that is out.

The pipeline's own coroutine is cancelled at its first suspension, then at its second, and so on until it
ends before; each time either when it suspends, or in the very turn in which it would have gone on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from proxy.demo import Behaviour, Hang, Ok, Outage, serve_demo
from tests.app.watching import assert_nothing_is_held, waiting
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo, running
from tests.kit.waiting import bounded, until

PATH = "/openai/v1/chat/completions"
STREAMED = CHAT[:-1] + b',"stream":true}'
TOOL = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"room"}}}'
)
MOST_SUSPENSIONS = 60


class CancelledAt:
    """Awaits a coroutine, and cancels the task of `wire` at the coroutine's `number`-th suspension.

    At the first there may be no task yet: then it is cancelled as soon as it is there, before its first step.
    """

    def __init__(self, wire: Any, coroutine: Coroutine[Any, Any, None], number: int, *, late: bool) -> None:
        self._wire = wire
        self._coroutine = coroutine
        self._number = number
        self._late = late
        self.happened = False

    def __await__(self) -> Generator[Any, Any, None]:
        seen, go_on = 0, partial(self._coroutine.send, None)
        while True:
            try:
                awaited = go_on()
            except StopIteration:
                return
            seen += 1
            if seen == self._number:
                self.happened = True
                if self._late and isinstance(awaited, asyncio.Future):
                    awaited.add_done_callback(self._cancel)
                elif self._wire.call is None:
                    asyncio.get_running_loop().call_soon(self._cancel)
                else:
                    self._cancel()
            try:
                yield awaited
                go_on = partial(self._coroutine.send, None)
            except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
                go_on = partial(self._coroutine.throw, error)

    def _cancel(self, _: object = None) -> None:
        self._wire.call.cancel()


class Arming:
    """Lets the next call of a proxy be cancelled."""

    def __init__(self, proxy: Any) -> None:
        self._pipeline = proxy.proxy._pipeline
        self._serve = self._pipeline.serve
        self.ended = asyncio.Event()
        self.cancelled: CancelledAt | None = None

    def next_call(self, number: int, *, late: bool) -> None:
        self.ended.clear()

        async def serve(wire: Any) -> None:
            self._pipeline.serve = self._serve
            self.cancelled = CancelledAt(wire, self._serve(wire), number, late=late)
            try:
                await self.cancelled
            finally:
                self.ended.set()

        self._pipeline.serve = serve


async def in_every_place(
    proxy: Any, send: bytes, late: bool, meanwhile: Callable[[Any], Coroutine[Any, Any, None]] | None = None
) -> int:
    """Cancel one call after another, each one suspension further; how many places there were."""
    arming = Arming(proxy)
    for number in range(1, MOST_SUSPENSIONS):
        async with connect(proxy.url) as raw:
            arming.next_call(number, late=late)
            await raw.send(send)
            if meanwhile is not None:
                await meanwhile(raw)
            await bounded(arming.ended.wait())
        await assert_nothing_is_held(proxy)
        assert arming.cancelled is not None
        if not arming.cancelled.happened:
            return number - 1
    raise AssertionError("a call that is suspended for ever")


def post(path: str, body: bytes) -> bytes:
    return head("POST", path, content_length=str(len(body))) + body


LATE = pytest.mark.parametrize("late", [False, True], ids=["as it suspends", "as it would go on"])


@LATE
@pytest.mark.parametrize(
    ("call", "least"),
    [
        (post(PATH, CHAT), 2),
        (post(PATH, STREAMED), 3),
        (post("/mcp", TOOL), 2),
        (post("/openai/v1/other", b"x" * 300_000), 3),
        (head("GET", "/tools/search"), 2),
    ],
    ids=["a plain call", "a stream", "a tool call", "a long body", "no body"],
)
async def test_a_call_on_its_way_to_its_upstream_and_back(call, least, late):
    behaviour = Behaviour(latency_s=0.001, stream_events=4, event_gap_s=0.001)
    async with before_demo(behaviour, upstream="concurrency: 1\nconnections: {idle_for: 0s}") as proxy:
        assert await in_every_place(proxy, call, late) >= least
        ledger = proxy.upstream.ledger
        assert ledger.peak_in_flight <= 1 or "other" in ledger.entries[-1].path
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200


async def test_a_stream_that_is_cancelled_is_counted_all_the_same():
    """What was delivered until then was used, and is charged."""
    behaviour = Behaviour(latency_s=0.0, event_gap_s=0.005, stream_events=1000)
    async with AsyncExitStack() as stack:
        demo = await stack.enter_async_context(serve_demo(behaviour))
        bucket = "{rate: 1 token/hour, burst: 100k}"
        route = f"{{name: openai, path: /openai, upstream: openai, buckets: [{bucket}]}}"
        yaml = f"upstreams: {{openai: {{url: '{demo.url}', dialect: openai}}}}\nroutes: [{route}]\n"
        proxy = await stack.enter_async_context(running(yaml))
        wires, pipeline = [], proxy.proxy._pipeline
        serve, ledger = pipeline.serve, demo.upstream.ledger

        async def serve_and_show(wire: Any) -> None:
            wires.append(wire)
            await serve(wire)

        pipeline.serve = serve_and_show
        async with connect(proxy.url) as raw:
            await raw.send(post(PATH, STREAMED))
            await until(lambda: ledger.entries and ledger.entries[-1].output_tokens >= 40)
            wires[-1].call.cancel()
            await until(lambda: ledger.entries[-1].ending is not None)
        await assert_nothing_is_held(proxy)
        paid = ledger.entries[-1].input_tokens + ledger.entries[-1].output_tokens
        (row,) = proxy.proxy.state().buckets
        # What we asked for besides has been counted by the upstream: 41 bytes.
        assert row.burst - row.level == pytest.approx(paid - 41 // 4, rel=0.1)


@LATE
async def test_a_call_that_waits_in_the_queue_and_is_admitted_from_it(late):
    behaviour = Behaviour(latency_s=0.0)
    async with before_demo(behaviour, upstream="concurrency: 1") as proxy:
        arming, ledger = Arming(proxy), proxy.upstream.ledger
        for number in range(1, MOST_SUSPENSIONS):
            behaviour.mode = Hang()
            async with connect(proxy.url) as holder, connect(proxy.url) as raw:
                await holder.send(post(PATH, CHAT))
                await bounded(ledger.until(lambda: ledger.in_flight == 1))
                arming.next_call(number, late=late)
                await raw.send(post(PATH, CHAT))
                await until(lambda: waiting(proxy) == 1 or arming.ended.is_set())
                behaviour.mode = Ok()
                assert (await holder.reply()).status == 200
                await bounded(arming.ended.wait())
                await assert_nothing_is_held(proxy)
            if not arming.cancelled.happened:
                break
        assert number > 2
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200


@LATE
async def test_a_call_whose_body_comes_in_pieces_while_it_is_sent_on(late):
    async def pieces(raw: Any) -> None:
        for _ in range(3):
            await asyncio.gather(raw.send(b"x" * 1000), return_exceptions=True)

    async with before_demo(upstream="concurrency: 1") as proxy:
        call = head("POST", "/openai/v1/other", content_length="3000")
        assert await in_every_place(proxy, call, late, pieces) >= 3


@LATE
async def test_a_call_that_fails_and_is_refused(late):
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    upstream = "concurrency: 1\nbreaker: off"
    async with before_demo(behaviour, upstream=upstream) as proxy:
        assert await in_every_place(proxy, post(PATH, CHAT), late) >= 2


@LATE
async def test_a_probe_that_is_cancelled_gives_its_slot_back(late):
    """A lost probe slot would keep the breaker half-open, and its upstream alone, for ever."""
    behaviour = Behaviour(latency_s=0.0)
    upstream = "breaker: {minimum_calls: 1, probe_every: 1ms, probes: 1}"
    async with before_demo(behaviour, upstream=upstream) as proxy, AsyncExitStack() as stack:
        arming = Arming(proxy)

        def may_go() -> bool:
            breaker = proxy.proxy._gate.targets["openai"].breaker
            return breaker.wait_s(proxy.proxy._clock()) == 0.0

        raw = await stack.enter_async_context(connect(proxy.url))
        for number in range(1, MOST_SUSPENSIONS):
            behaviour.mode = Outage()
            await until(
                lambda: proxy.proxy._gate.targets["openai"].breaker.wait_s(proxy.proxy._clock()) == 0.0
            )
            assert (await raw.post(PATH)).status == 502
            behaviour.mode = Ok()
            await until(
                lambda: proxy.proxy._gate.targets["openai"].breaker.wait_s(proxy.proxy._clock()) == 0.0
            )
            async with connect(proxy.url) as probe:
                arming.next_call(number, late=late)
                # Of another caller: a repeat of what failed would come last of all.
                await probe.send(head("POST", PATH, content_length=str(len(CHAT)), x_caller_id="b") + CHAT)
                await bounded(arming.ended.wait())
            await assert_nothing_is_held(proxy)
            if not arming.cancelled.happened:
                break
            assert (await raw.post(PATH)).status == 200, f"after a probe cancelled at suspension {number}"
        assert number > 2
