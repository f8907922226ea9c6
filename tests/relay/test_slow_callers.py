"""Callers that take slowly, or that are not the last on their connection."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.kit.bench import bench_with
from tests.kit.raw import bounded
from tests.kit.scripted import Peer

pytestmark = pytest.mark.conformance("streaming")

SIZE = 1_500_000


async def test_a_caller_that_takes_slowly_but_steadily_gets_all_of_it():
    """Its time begins anew with each piece that it takes, and small buffers leave it no room to run ahead."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE + b"x" * SIZE)
        await peer.left()

    async with bench_with(upstream="timeouts: {idle: 300ms}") as bench:
        bench.play(script)
        parts = bench.proxy.url.removeprefix("http://").split(":")
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, (parts[0], int(parts[1])))
        reader, writer = await asyncio.open_connection(sock=caller, limit=4 * 1024)
        writer.write(b"GET /x HTTP/1.1\r\nhost: proxy\r\n\r\n")
        got = 0
        start = loop.time()
        while got < SIZE:
            piece = await bounded(reader.read(16 * 1024))
            if not piece:
                break
            got += len(piece)
            paced = start + 1.2 * got / SIZE  # four times `idle` in all
            await bounded(_at(paced))
        writer.transport.abort()
    assert got >= SIZE


async def _at(when: float) -> None:
    """Return at that time of the loop."""
    loop = asyncio.get_running_loop()
    due: asyncio.Future[None] = loop.create_future()
    loop.call_at(when, due.set_result, None)
    await due
