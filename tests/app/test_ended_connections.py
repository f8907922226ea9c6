"""Every connection that we end, other than after its last answer, is counted once, under its reason."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.bench import POST, answering_ok, bench_with, everything, yaml_of
from tests.kit.raw import connect, head
from tests.kit.running import Running, running
from tests.kit.scripted import Peer, Scripted, silent
from tests.kit.waiting import until

QUICK = "connections: {head_within: 60ms, body_window: 60ms, body_per_second: 10KiB}\n"
BRIEF = "connections: {keep_alive: 60ms}\n"
SMALL = "connections: {max_pipelined: 2, max_open: 2}\nheaders: {max_url: 100B, max_size: 1KiB}\n"
STALLS = "timeouts: {idle: 60ms}"

GET = head("GET", "/x")


async def ended(proxy: Running) -> dict[str, int]:
    """The counts that are not 0, by reason."""
    found = {}
    for family in text_string_to_metric_families(await proxy.metrics()):
        if family.name == "backpressure_connections_ended":
            found = {each.labels["reason"]: int(each.value) for each in family.samples if each.value}
    return found


REFUSED = {
    "bad_request": (GET + b"what is this", 400),
    "uri_too_long": (head("GET", "/" + "a" * 100), 414),
    "header_fields_too_large": (head("GET", "/x", a="a" * 1024), 431),
    "not_implemented": (head("POST", "/x", transfer_encoding="gzip"), 501),
    "http_version_not_supported": (GET.replace(b"1.1", b"2.0"), 505),
    "too_many_ahead": (GET * 5, 200),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_what_is_no_request_to_be_served(reason: str):
    request, status = REFUSED[reason]
    async with bench_with(top=SMALL) as bench:
        bench.play(answering_ok)
        assert await ended(bench.proxy) == {}
        async with bench.connect() as raw:
            await raw.send(request)
            got = await everything(raw)
        assert b"HTTP/1.1 %d " % status in got.raw
        assert (b'"code":"%b"' % reason.encode() in got.raw) == (status != 200)
        assert await ended(bench.proxy) == {reason: 1}


SLOW = {
    "head_too_slow": (QUICK, GET[:-2], 408),
    "body_too_slow": (QUICK, head("POST", "/x", content_length="5") + b"he", 408),
    "idle": (BRIEF, b"", None),
}


@pytest.mark.parametrize("reason", SLOW)
async def test_who_is_too_slow(reason: str):
    top, request, status = SLOW[reason]
    async with bench_with(top=top) as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(request)
            got = await everything(raw)
        assert got.raw == b"" if status is None else got.status == status
        await until(lambda: bench.in_flight == 0)
        assert await ended(bench.proxy) == {reason: 1}


async def test_who_takes_no_more_of_its_answer():
    size = 20_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"a" * size)

    async with bench_with(upstream=STALLS) as bench:
        bench.play(script)
        async with bench.connect() as raw:
            await raw.send(POST)
            await until(lambda: bench.in_flight == 1)
            await until(lambda: bench.in_flight == 0)
        assert await ended(bench.proxy) == {"stalled": 1}


@pytest.mark.parametrize("dialect", ["rest", "mcp"])
async def test_who_sends_no_more_of_its_request(dialect: str):
    """Also of one whose body is read before it is admitted anywhere, as MCP's are."""
    async with Scripted(silent) as upstream:
        yaml = yaml_of(upstream.url, upstream=STALLS).replace("dialect: rest", f"dialect: {dialect}")
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            await raw.send(head("POST", "/x", content_length="5") + b"he")
            assert await raw.is_closed()
            assert await ended(proxy) == {"stalled": 1}


async def test_who_leaves_by_himself_is_not_counted():
    async with bench_with() as bench:
        bench.play(silent)
        for request in (b"", GET[:-2], POST[:-1], POST):
            async with bench.connect() as raw:
                await raw.send(request)
                if request == POST:
                    await until(lambda: bench.heard)
        await until(lambda: bench.in_flight == 0)
        await bench.serves()
        assert await ended(bench.proxy) == {}


async def test_who_makes_room_and_who_finds_none():
    async with bench_with(top=SMALL) as bench:
        bench.play(silent)
        async with bench.connect() as first, bench.connect() as second:
            await first.send(POST)
            await until(lambda: len(bench.heard) == 1)
            async with bench.connect() as third:
                assert await second.is_closed()
                assert await ended(bench.proxy) == {"made_room": 1}
                await third.send(POST)
                await until(lambda: len(bench.heard) == 2)
                async with bench.connect() as fourth:
                    assert await fourth.is_closed()
        assert await ended(bench.proxy) == {"made_room": 1, "no_room": 1}


async def test_one_that_is_ending_already_is_not_counted_again():
    """Its last words said, a connection is listened to for a moment longer, and idle."""
    brief = "connections: {head_within: 30ms, keep_alive: 60ms}\n"
    async with bench_with(top=brief) as bench, bench.connect() as raw:
        await raw.send(GET[:-2])
        assert (await everything(raw)).status == 408
        async with bench.connect() as clock:
            assert await clock.is_closed()
        assert await ended(bench.proxy) == {"head_too_slow": 1, "idle": 1}
