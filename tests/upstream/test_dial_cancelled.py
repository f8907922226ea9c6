"""A caller may leave at any moment of a dial: whatever it had begun is counted out again."""

from __future__ import annotations

import asyncio

import pytest

from proxy.upstream import Upstream
from tests.kit.waiting import bounded

TURNS = 12
"""More turns of the loop than a dial to the loopback interface takes."""


@pytest.mark.parametrize("turns", range(TURNS))
async def test_a_dial_that_is_cancelled_in_any_turn_leaves_nothing_in_the_pool(turns):
    accepted = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
    async with server:
        upstream = Upstream("u", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        dialling = upstream.dial()
        # By hand until the socket is connected, which takes as long as it takes; then turn by turn.
        while not dialling.done() and accepted.empty():
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        for made in await asyncio.gather(dialling, return_exceptions=True):
            if not isinstance(made, BaseException):
                made.abort()
        await bounded(upstream.aclose())  # waits for the last connection
        assert not upstream.pool.connections
        assert upstream.pool.dialling == 0
        while not accepted.empty():
            accepted.get_nowait().close()
