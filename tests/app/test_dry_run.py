"""Dry run from outside: nobody is refused, and the operator sees who would have been."""

from __future__ import annotations

from proxy.demo import Behaviour, Hang, Ok, Outage
from tests.app.watching import assert_nothing_is_held, by_hand, counted, in_flight, phase
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo
from tests.kit.waiting import bounded

PATH = "/openai/v1/chat/completions"
CALL = head("POST", PATH, content_length=str(len(CHAT))) + CHAT
BUCKET = "buckets: [{rate: 1 request/hour, per: caller, enforce: false}]"
ALL = "concurrency: {slots: 1, enforce: false}\nbreaker: {minimum_calls: 2, open_for: 1h, enforce: false}"


async def test_every_call_is_answered_and_those_that_would_be_refused_are_counted_logged_and_shown():
    async with before_demo(upstream=ALL, route=BUCKET) as proxy, connect(proxy.url) as raw:
        replies = [await raw.post(PATH) for _ in range(5)]
        assert [reply.status for reply in replies] == [200] * 5
        assert not [name for reply in replies for name in reply.headers if name.startswith("x-backpressure")]
        sums = await counted(proxy)
        assert (sums["calls_would_refuse_total"], sums["calls_refused_total"]) == (4, 0)
        assert sums["calls_admitted_total"] == 5
        would = [line for line in proxy.lines() if line["event"] == "would_refuse"]
        assert [line["reason"] for line in would] == ["bucket_empty"] * 4
        shown = await proxy.state()
        assert {row["dry_run"] for row in (*shown["caps"], *shown["buckets"], *shown["breakers"])} == {True}
        assert not any(lane["dry_run"] for lane in shown["lanes"])
        await assert_nothing_is_held(proxy)


async def test_a_full_cap_holds_nobody_up_and_every_permit_comes_back():
    async with (
        before_demo(upstream=ALL) as proxy,
        connect(proxy.url) as one,
        connect(proxy.url) as other,
        connect(proxy.url) as raw,
    ):
        ledger = proxy.upstream.ledger
        proxy.upstream.behaviour.mode = Hang()
        for holder in (one, other):
            await holder.send(CALL)
        await bounded(ledger.until(lambda: ledger.in_flight == 2))
        assert in_flight(proxy) == 2
        proxy.upstream.behaviour.mode = Ok()
        assert (await raw.post(PATH)).status == 200
        assert (await counted(proxy))["calls_would_refuse_total"] == 2
        one.leave()
        other.leave()
        await assert_nothing_is_held(proxy)
        assert proxy.proxy._admission.gate.store.cap_keys("") == []


async def test_an_outage_reaches_every_caller_and_the_breaker_that_is_tried_says_it_would_have_opened():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with before_demo(behaviour, upstream=ALL) as proxy, connect(proxy.url) as raw:
        clock = by_hand(proxy)
        assert [(await raw.post(PATH)).status for _ in range(4)] == [502] * 4
        assert phase(proxy) == "open"
        assert proxy.upstream.ledger.arrivals == 4
        behaviour.mode = Ok()
        clock.advance(3600)
        assert [(await raw.post(PATH)).status for _ in range(3)] == [200] * 3
        assert phase(proxy) == "closed"
        assert (await counted(proxy))["calls_would_refuse_total"] == 2
        moves = [line["new"] for line in proxy.lines() if line["event"] == "breaker_moved"]
        assert moves == ["open", "half-open", "closed"]


async def test_a_queue_that_is_tried_refuses_at_once_and_says_who_would_have_waited():
    route = "queue: {size: 9, enforce: false}"
    async with (
        before_demo(upstream="concurrency: 1", route=route) as proxy,
        connect(proxy.url) as holder,
        connect(proxy.url) as raw,
    ):
        ledger = proxy.upstream.ledger
        proxy.upstream.behaviour.mode = Hang()
        await holder.send(CALL)
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        reply = await raw.post(PATH)
        assert (reply.status, reply.headers["x-backpressure-reason"]) == (429, "cap_reached")
        sums = await counted(proxy)
        assert (sums["calls_would_queue_total"], sums["calls_would_refuse_total"]) == (1, 0)
        assert [line["scope"] for line in proxy.lines() if line["event"] == "would_queue"] == [
            "upstream:openai"
        ]
        holder.leave()
        await assert_nothing_is_held(proxy)
