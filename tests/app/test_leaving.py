"""A caller that leaves costs nothing more, wherever its call is at that moment."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo import Behaviour, Ending, Hang, Ok
from tests.app.watching import assert_nothing_is_held, counted, in_flight, waiting
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo
from tests.kit.waiting import bounded, until

PATH = "/openai/v1/chat/completions"
CALL = head("POST", PATH, content_length=str(len(CHAT))) + CHAT
STREAMED = CHAT[:-1] + b',"stream":true}'


@pytest.mark.parametrize("size", [len(CHAT), 400_000], ids=["short", "long prompt"])
async def test_who_leaves_while_it_waits_is_out_of_the_queue_and_never_seen_by_the_upstream(size):
    """With a long prompt the server stops reading; it must notice all the same that nobody is there."""
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with (
        before_demo(behaviour, upstream="concurrency: 1") as proxy,
        connect(proxy.url) as holder,
        connect(proxy.url) as leaver,
        connect(proxy.url) as stayer,
    ):
        ledger = proxy.upstream.ledger
        await holder.send(CALL)
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        leaver.writer.write(head("POST", PATH, content_length=str(size)) + CHAT.ljust(size))
        await until(lambda: waiting(proxy) == 1)
        await stayer.send(CALL)
        await until(lambda: waiting(proxy) == 2)
        leaver.leave()
        await until(lambda: waiting(proxy) == 1)
        assert (await counted(proxy))["calls_left_total"] == 1
        behaviour.mode = Ok()
        assert (await holder.reply()).status == (await stayer.reply()).status == 200
        assert ledger.arrivals == 2
        await assert_nothing_is_held(proxy)


async def test_who_leaves_while_its_upstream_works_frees_both():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with (
        before_demo(behaviour, upstream="concurrency: 1", route="queue: {size: 0}") as proxy,
        connect(proxy.url) as leaver,
        connect(proxy.url) as other,
    ):
        ledger = proxy.upstream.ledger
        await leaver.send(CALL)
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        leaver.leave()
        await bounded(ledger.until(lambda: ledger.ended[Ending.LEFT] == 1))
        assert in_flight(proxy) == 0
        behaviour.mode = Ok()
        assert (await other.post(PATH)).status == 200
        await assert_nothing_is_held(proxy)
        assert not [line for line in proxy.lines() if line["event"] == "failed"], "not the upstream's fault"
        assert (await counted(proxy))["failures_total"] == 0


@pytest.mark.parametrize("how", ["reset", "closed well"])
async def test_who_leaves_in_the_middle_of_a_stream_ends_it_at_the_upstream(how):
    behaviour = Behaviour(latency_s=0.0, stream_events=100, event_gap_s=3600.0)
    async with before_demo(behaviour) as proxy, connect(proxy.url) as leaver:
        ledger = proxy.upstream.ledger
        await leaver.send(head("POST", PATH, content_length=str(len(STREAMED))) + STREAMED)
        await bounded(leaver.reader.readuntil(b"data: "))
        if how == "reset":
            leaver.leave()
        else:
            leaver.writer.close()
        await bounded(ledger.until(lambda: ledger.ended[Ending.LEFT] == 1))
        await until(lambda: in_flight(proxy) == 0)
        await assert_nothing_is_held(proxy)


@pytest.mark.parametrize("sent", [0, 1000], ids=["nothing of it", "a part of it"])
async def test_who_leaves_while_it_sends_its_body_holds_nothing(sent):
    async with before_demo() as proxy, connect(proxy.url) as leaver:
        await leaver.send(head("POST", PATH, content_length="200000") + b"x" * sent)
        await until(lambda: in_flight(proxy) == 1)
        if sent:
            ledger = proxy.upstream.ledger
            await bounded(ledger.until(lambda: ledger.arrivals == 1))
        leaver.leave()
        await until(lambda: in_flight(proxy) == 0)
        if sent:
            await bounded(ledger.until(lambda: ledger.ended[Ending.LEFT] == 1))
        await assert_nothing_is_held(proxy)


async def test_who_leaves_while_a_tool_call_is_read_makes_no_call():
    async with before_demo() as proxy, connect(proxy.url) as leaver:
        await leaver.send(head("POST", "/mcp", content_length="5000") + b'{"jsonrpc"')
        await until(lambda: proxy.proxy._pipeline._running == 1)
        leaver.leave()
        await assert_nothing_is_held(proxy)
        assert (await counted(proxy))["calls_offered_total"] == 0
        assert proxy.upstream.ledger.arrivals == 0


async def test_a_crowd_that_leaves_at_once_leaves_nothing_behind_and_the_next_is_served():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with before_demo(behaviour, upstream="concurrency: 4") as proxy:
        ledger = proxy.upstream.ledger

        async def come_and_go(number: int) -> None:
            async with connect(proxy.url) as raw:
                await raw.send(CALL)
                if number % 3:
                    await crowd_is_there.wait()

        crowd_is_there = asyncio.Event()
        async with asyncio.TaskGroup() as crowd:
            for number in range(60):
                crowd.create_task(come_and_go(number))
            await bounded(ledger.until(lambda: ledger.in_flight == 4))
            await until(lambda: waiting(proxy) >= 30)
            crowd_is_there.set()
        await until(lambda: in_flight(proxy) == waiting(proxy) == 0)
        behaviour.mode = Ok()
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200
        await assert_nothing_is_held(proxy)
        assert ledger.peak_in_flight <= 4
