"""An upstream goes down and comes back: what its callers, its operator and itself see of it."""

from __future__ import annotations

import httpx

from proxy.demo import Behaviour, Hang, Ok, Outage
from tests.app.watching import assert_nothing_is_held, by_hand, phase, waiting
from tests.kit.ports import dead_port
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo, running
from tests.kit.waiting import bounded, until

BREAKER = "breaker: {minimum_calls: 4, window: 10s, failure_ratio: 0.5, open_for: 15s, probes: 2}"
PATH = "/openai/v1/chat/completions"


async def statuses(raw, count):
    return [(await raw.post(PATH)).status for _ in range(count)]


async def test_an_outage_costs_its_callers_nothing_but_a_quick_no_until_a_probe_finds_it_over():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_demo(behaviour, upstream=BREAKER) as proxy,
        connect(proxy.url) as raw,
        httpx.AsyncClient(base_url=proxy.control) as control,
    ):
        clock, ledger = by_hand(proxy), proxy.upstream.ledger
        assert await statuses(raw, 4) == [502] * 4
        assert phase(proxy) == "open"

        told = [await raw.post(PATH) for _ in range(5)]
        assert ledger.arrivals == 4, "nothing more reaches the upstream"
        for reply in told:
            assert reply.status == 503
            assert reply.headers["x-backpressure-reason"] == "breaker_open"
            assert 15_000 <= int(reply.headers["retry-after-ms"]) < 17_000, "the time to the next probe"
        assert len({reply.headers["retry-after-ms"] for reply in told}) == 5, "no herd"
        for path in ("/healthz", "/readyz"):
            assert (await control.get(path)).status_code == 200, "the proxy itself is well"

        clock.advance(14.9)
        assert await statuses(raw, 1) == [503], "not before its time"
        clock.advance(0.1)
        assert await statuses(raw, 2) == [502, 503], "a probe found it down still"
        assert ledger.arrivals == 5

        behaviour.mode = Ok()
        clock.advance(15)
        assert await statuses(raw, 1) == [200]
        assert phase(proxy) == "half-open"
        assert await statuses(raw, 3) == [200] * 3
        assert phase(proxy) == "closed"
        moves = [line["new"] for line in proxy.lines() if line["event"] == "breaker_moved"]
        assert moves == ["open", "half-open", "open", "half-open", "closed"]
        await assert_nothing_is_held(proxy)


async def test_who_comes_back_at_the_told_time_is_admitted():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with before_demo(behaviour, upstream=BREAKER) as proxy, connect(proxy.url) as raw:
        clock = by_hand(proxy)
        await statuses(raw, 4)
        refused = await raw.post(PATH)
        behaviour.mode = Ok()
        clock.advance(int(refused.headers["retry-after-ms"]) / 1000)
        assert (await raw.post(PATH)).status == 200


async def test_while_half_open_no_more_than_the_probes_reach_the_upstream():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_demo(behaviour, upstream=BREAKER) as proxy,
        connect(proxy.url) as raw,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
    ):
        clock, ledger = by_hand(proxy), proxy.upstream.ledger
        await statuses(raw, 4)
        clock.advance(15)
        behaviour.mode = Hang()
        for probe in (first, second):
            await probe.send(head("POST", PATH, content_length=str(len(CHAT))) + CHAT)
        await bounded(ledger.until(lambda: ledger.in_flight == 2))
        assert await statuses(raw, 3) == [503] * 3
        assert ledger.arrivals == 6
        first.leave()  # says nothing of the upstream: another may probe in its place
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        behaviour.mode = Ok()
        assert (await second.reply()).status == 200
        assert await statuses(raw, 1) == [200]
        assert phase(proxy) == "closed"


async def test_who_waits_for_an_upstream_is_told_at_once_when_its_breaker_opens():
    """Whatever it waits for: here for an allowance that comes in a minute."""
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    route = "buckets: [{rate: 1 request/60s}]\nqueue: {size: 5, max_age: 90s}"
    async with (
        before_demo(behaviour, upstream="breaker: {minimum_calls: 1}", route=route) as proxy,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
    ):
        ledger = proxy.upstream.ledger
        await first.send(head("POST", PATH, content_length=str(len(CHAT))) + CHAT)
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        await second.send(head("POST", PATH, content_length=str(len(CHAT))) + CHAT)
        await until(lambda: waiting(proxy) == 1)
        behaviour.mode = Outage()
        assert (await first.reply()).status == 502
        reply = await second.reply()
        assert reply.status == 503
        assert reply.headers["x-backpressure-reason"] == "breaker_open"
        assert ledger.arrivals == 1
        await assert_nothing_is_held(proxy)


async def test_a_dead_address_is_a_502_that_names_no_host_and_opens_the_breaker():
    port = dead_port()
    yaml = (
        f"upstreams: {{up: {{url: 'http://127.0.0.1:{port}', dialect: openai, {BREAKER}}}}}\n"
        "routes: [{name: chat, path: /openai, upstream: up}]\n"
    )
    async with running(yaml) as proxy, connect(proxy.url) as raw:
        replies = [await raw.post(PATH) for _ in range(5)]
        assert [reply.status for reply in replies] == [502] * 4 + [503]
        for reply in replies:
            said = f"{reply.headers}{reply.text}"
            assert str(port) not in said
            assert "127.0.0.1" not in said
