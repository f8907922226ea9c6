"""A caller's connection, without a socket: a call that is cut at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.server import ServerState

from proxy.listener.connection import CallerConnection
from proxy.listener.turn import Turn
from proxy.wire import Wire
from tests.kit.raw import head
from tests.listener.test_reading import BOUNDS


class Transport:
    """What is asked of one here. It tells of the connection's loss later, as a real one does."""

    def __init__(self) -> None:
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


async def test_a_call_that_is_cut_at_once_is_not_served_again_nor_is_who_stands_behind() -> None:
    served: list[bytes] = []

    async def crashes(wire: Wire) -> None:
        served.append(wire.path)
        assert len(served) < 5, "for ever"
        wire.reset()
        wire.served()

    loop = asyncio.get_running_loop()
    connection = CallerConnection(crashes, ServerState(), BOUNDS, lambda _: None, Turn(loop))
    transport = Transport()
    connection.connection_made(cast("asyncio.BaseTransport", transport))
    connection.data_received(head("GET", "/first") + head("GET", "/second"))
    await asyncio.sleep(0)  # it is served at the end of the turn
    assert transport.aborted
    assert served == [b"/first"]
    connection.connection_lost(None)
