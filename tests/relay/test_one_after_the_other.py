"""A call behind another on one connection begins when that one has let go of all that it held."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.bench import OK, answering_ok, bench_with
from tests.kit.raw import connect, head
from tests.kit.scripted import Peer
from tests.kit.waiting import until

pytestmark = pytest.mark.conformance("abuse")

GET = head("GET", "/x")


async def test_a_call_that_came_behind_another_finds_its_permit_free():
    async with bench_with(upstream="concurrency: 1", route="queue: {size: 0}") as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(GET * 5)
            assert [(await raw.reply()).status for _ in range(5)] == [200] * 5


async def test_and_its_connection():
    async with bench_with() as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(GET * 5)
            assert [(await raw.reply()).status for _ in range(5)] == [200] * 5
        assert bench.upstream.connections == 1


async def test_and_the_only_probe_of_a_breaker():
    """Half-open, one probe at a time: the second call is not refused for the first, which is answered."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK if fine else b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")

    fine = False
    breaker = "{minimum_calls: 2, probe_every: 20ms, probes: 1}"
    async with bench_with(breaker=breaker) as bench:
        bench.play(script)
        async with bench.connect() as raw:
            for _ in range(2):
                await raw.get("/x")
            fine = True
            opened = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > opened + 0.05)
            await raw.send(GET * 2)
            assert [(await raw.reply()).status for _ in range(2)] == [200] * 2


async def test_a_call_whose_body_was_pulled_is_over_before_its_caller_is_served_again():
    """`both_ways` waits a turn after the answer: what the call held, and that it failed, is not known yet."""

    async def failing(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")

    async with bench_with(upstream="concurrency: 1", route="queue: {size: 0}") as bench:
        bench.play(failing)
        async with connect(bench.proxy.url) as raw:
            for _ in range(20):
                await raw.send(head("POST", "/x", transfer_encoding="chunked") + b"1\r\nx\r\n")
                await raw.send(b"0\r\n\r\n" + GET)
                assert [(await raw.reply()).status for _ in range(2)] == [503] * 2
