"""Requests sent ahead of their answers: so many as `max_pipelined` are served, however many come at once.

nginx and Envoy read one request after the other and leave the rest in a buffer that they bound. httptools
reads all that it is given, so a bound is a count here, and what is beyond it is for another connection: as
nginx ends one after `keepalive_requests`, and as RFC 9112 §9.3.2 has it of requests without an answer.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.bench import OK, Bench, answering_ok, bench_with, everything
from tests.kit.raw import head
from tests.kit.scripted import Peer
from tests.kit.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("abuse")]

GET = head("GET", "/x")


@pytest.mark.parametrize("sent", [99, 100, 101, 700])
async def test_of_those_that_are_read_at_once_exactly_so_many_are_served(bench: Bench, sent: int):
    """Fewer bytes than the smallest read of an event loop: they arrive as one."""
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(GET * sent)
        if sent <= 100:
            assert [(await raw.reply()).status for _ in range(sent)] == [200] * sent
        else:
            got = await everything(raw)
            assert got.raw.count(b"HTTP/1.1 200 ") == 100
            assert got.raw.count(b"connection: close") == 1
    assert len(bench.heard) == min(sent, 100)


async def test_nor_are_more_served_when_they_come_behind_a_call_that_lasts():
    asked, answer = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await answer.wait()
        await peer.send(OK)
        await answering_ok(peer)

    async with bench_with(top="connections: {max_pipelined: 3}\n") as bench:
        bench.play(script)
        async with bench.connect() as raw:
            await raw.send(GET)
            await until(asked.is_set)
            await raw.send(GET * 500)
            answer.set()
            got = await everything(raw)
        assert got.raw.count(b"HTTP/1.1 200 ") == len(bench.heard) == 3


async def test_what_follows_the_last_that_is_served_is_not_even_looked_at():
    """It may be anything: it is neither served nor refused."""
    async with bench_with(top="connections: {max_pipelined: 3}\n") as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(GET * 4 + b"this is no request\r\n\r\n")
            got = await everything(raw)
        assert got.raw.count(b"HTTP/1.1 200 ") == 3
        assert got.raw.count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize(("sent", "size"), [(1_000, 0), (1_000, 2), (100, 2_000)])
async def test_however_many_are_refused_in_one_turn_they_are_answered_in_their_order(sent: int, size: int):
    """None is begun from within the one before it: a thousand would be too deep."""
    refuses = "buckets: [{rate: 1 request/hour}]\nqueue: {size: 0}"
    async with bench_with(top="connections: {max_pipelined: 1000}\n", route=refuses) as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            assert (await raw.get("/x")).status == 200
            await raw.send((head("POST", "/x", content_length=str(size)) + b"x" * size) * sent)
            assert [(await raw.reply()).status for _ in range(sent)] == [429] * sent
            assert (await raw.get("/again")).status == 429
        assert len(bench.heard) == 1


async def test_bytes_that_are_no_request_are_answered_behind_the_refusals_they_came_with():
    async with bench_with(route="buckets: [{rate: 1 request/hour}]\nqueue: {size: 0}") as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.get("/x")
            await raw.send(GET * 3 + b"this is no request\r\n\r\n")
            got = await everything(raw)
        assert got.raw.count(b"HTTP/1.1 429 ") == 3
        assert b"HTTP/1.1 400 " in got.raw.rpartition(b"HTTP/1.1 429 ")[2]
