"""Our own load generator counts what it sees, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from loadtests.origin import Origin
from loadtests.raw_client import BODY, PATH, measure, wire_request

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answering) -> AsyncIterator[int]:
    async def one_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the generator's time was over
        finally:
            writer.close()

    server = await asyncio.start_server(one_connection, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def take(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(BODY)) == BODY
    return head


async def test_it_sends_one_request_after_the_other_on_each_connection_to_our_own_upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0)
    async with server:
        told = await measure(server.sockets[0].getsockname()[1], 3, 0.3)
    assert told["requests"] == told["good"] > 3
    assert (told["opened"], told["broken"]) == (3, 0)
    assert 0 < told["p50_ms"] <= told["p99_ms"]


async def test_refusals_are_counted_and_are_not_good() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take(reader)
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}")

    async with serving(refuse) as port:
        told = await measure(port, 2, 0.2)
    assert told["requests"] > 2
    assert (told["good"], told["opened"], told["broken"]) == (0, 2, 0)


async def test_a_connection_that_is_closed_after_its_answer_is_replaced() -> None:
    async def refuse_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(b"HTTP/1.1 429 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    async with serving(refuse_once) as port:
        told = await measure(port, 2, 0.2)
    assert told["opened"] >= told["requests"] > 2
    assert told["broken"] == 0


async def test_a_connection_that_is_cut_within_an_answer_is_broken_and_ends_the_run() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    async with serving(cut) as port:
        told = await asyncio.wait_for(measure(port, 1, 60.0), 30)
    assert (told["requests"], told["broken"]) == (0, 1)


async def test_what_it_sends_is_what_a_caller_of_the_proxy_sends() -> None:
    head, _, body = wire_request(4242).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == f"POST {PATH} HTTP/1.1".encode()
    assert b"host: 127.0.0.1:4242" in lines
    assert body == BODY


async def test_further_lines_stand_in_the_head_and_change_nothing_else() -> None:
    head, _, body = wire_request(4242, more=["x-one: 1", "x-two: 2"]).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[-2:] == [b"x-one: 1", b"x-two: 2"]
    assert head.split(b"\r\n")[:-2] == wire_request(4242).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert body == BODY


@pytest.mark.parametrize("cuts", [[1], [200], [1, 2, 3, 500]])
async def test_our_upstream_answers_each_request_once_however_it_is_cut(cuts: list[int]) -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        wire = wire_request(port) * 2
        for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            writer.write(wire[begin:end])
            await writer.drain()
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert b"chat.completion" in await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
