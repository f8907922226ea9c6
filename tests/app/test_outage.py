"""An upstream goes down and comes back: what its callers, its operator and itself see of it."""

from __future__ import annotations

import asyncio

import httpx

from proxy.demo import Behaviour, Hang, Ok, Outage
from tests.app.watching import assert_nothing_is_held, by_hand, phase, waiting
from tests.kit.bench import OK, bench_with
from tests.kit.ports import dead_port
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo, running
from tests.kit.scripted import Peer
from tests.kit.waiting import bounded, until

BREAKER = "breaker: {minimum_calls: 4, window: 10s, open_for: 15s, probe_every: 10s, probes: 2}"
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

        told = [await raw.post(PATH, x_caller_id=f"agent-{number}") for number in range(5)]
        assert ledger.arrivals == 4, "nothing more reaches the upstream"
        for reply in told:
            assert reply.status == 503
            assert reply.headers["x-backpressure-reason"] == "breaker_open"
            assert 7_500 <= int(reply.headers["retry-after-ms"]) < 26_000, "the time to the next probe"
        assert len({reply.headers["retry-after-ms"] for reply in told}) == 5, "no herd"
        for path in ("/healthz", "/readyz"):
            assert (await control.get(path)).status_code == 200, "the proxy itself is well"

        clock.advance(7.4)
        assert await statuses(raw, 1) == [503], "not before its time"
        clock.advance(16.0)  # a probe, and a retry after all others
        assert await statuses(raw, 2) == [502, 503], "a probe found it down still"
        assert ledger.arrivals == 5
        told = await raw.post(PATH)
        assert 15_000 <= int(told.headers["retry-after-ms"]) < 26_000, "as long as it has lasted, to 15 s"

        behaviour.mode = Ok()
        clock.advance(23.0)
        assert await statuses(raw, 1) == [200]
        assert phase(proxy) == "half-open"
        assert await statuses(raw, 3) == [200] * 3
        assert phase(proxy) == "closed"
        moves = [line["new"] for line in proxy.lines() if line["event"] == "breaker_moved"]
        assert moves == ["open", "half-open", "closed"]
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


async def test_while_it_is_down_no_more_than_the_probes_reach_the_upstream():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_demo(behaviour, upstream=BREAKER) as proxy,
        connect(proxy.url) as raw,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
    ):
        clock, ledger = by_hand(proxy), proxy.upstream.ledger
        await statuses(raw, 4)
        behaviour.mode = Hang()
        for number, probe in enumerate((first, second), 1):
            clock.advance(23.0)
            await probe.send(head("POST", PATH, content_length=str(len(CHAT))) + CHAT)
            await bounded(ledger.until(lambda number=number: ledger.in_flight == number))
            assert await statuses(raw, 3) == [503] * 3
        assert ledger.arrivals == 6
        first.leave()  # says nothing of the upstream
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        behaviour.mode = Ok()
        assert (await second.reply()).status == 200
        assert await statuses(raw, 1) == [200]
        assert phase(proxy) == "closed"


async def test_calls_that_hang_since_before_an_outage_are_cut_when_it_is_over():
    """Each holds a permit, and would for the two minutes of `first_byte`."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if b"/hangs" in request.line:
                await never.wait()
            await peer.send(OK if well else b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")

    never, well = asyncio.Event(), True
    async with bench_with(breaker="{minimum_calls: 4, probes: 2}", upstream="concurrency: 8") as bench:
        bench.play(script)
        clock = by_hand(bench.proxy)
        async with bench.connect() as raw, bench.connect() as hangs:
            for _ in range(10):
                assert (await raw.get("/x")).status == 200
            await hangs.send(head("GET", "/hangs"))
            await until(lambda: bench.in_flight == 1)
            clock.advance(1.0)
            well = False
            while phase(bench.proxy, "up") == "closed":
                assert (await raw.get("/x")).status == 500
            clock.advance(15.0)
            well = True
            assert (await raw.get("/x")).status == 200
            reply = await hangs.reply()
            assert reply.status == 504
            assert reply.headers["x-backpressure-reason"] == "upstream_timeout"
            await until(lambda: bench.in_flight == 0)
            assert (await raw.get("/x")).status == 200
            assert phase(bench.proxy, "up") == "closed", "the cut says nothing of the time since"
            details = [line["detail"] for line in bench.proxy.lines() if line["event"] == "failed"]
            assert details[-1] == "no answer in all of an outage"


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
