"""The watch over a caller's connection."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from uvicorn.server import ServerState

from proxy.listener.connection import CallerConnection
from proxy.listener.turn import Turn
from proxy.wire import Wire
from tests.kit.waiting import bounded
from tests.listener.test_reading import BOUNDS


async def test_no_time_runs_before_the_connection_is_there():
    loop = asyncio.get_running_loop()
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failed.append(context))

    async def serve(_: Wire) -> None: ...

    CallerConnection(serve, ServerState(), replace(BOUNDS, idle_s=0.0), lambda _: None, Turn(loop))
    later = loop.create_future()
    loop.call_later(0.005, later.set_result, None)  # timers run in their order
    await bounded(later)
    assert not failed
