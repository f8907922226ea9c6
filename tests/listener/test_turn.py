"""The requests of one turn of the loop: read all, then served in the order in which they came."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from proxy.listener.connection import CallerConnection
from proxy.listener.turn import MOST, MOST_BYTES, Turn
from proxy.wire import Wire
from tests.kit.raw import head
from tests.listener.test_connection import Transport
from tests.listener.test_reading import BOUNDS

BODY = b"x" * (MOST_BYTES // 2)


class Listener:
    """Connections of one loop, and what came of them, in its order."""

    def __init__(self) -> None:
        self.turn = Turn(asyncio.get_running_loop())
        self.served: list[bytes] = []

    async def serve(self, wire: Wire) -> None:
        self.served.append(wire.path)
        if wire.path == b"/breaks":
            raise OSError("no")
        wire.answer(200, [], b"")
        wire.served()

    def connection(self) -> CallerConnection:
        made = CallerConnection(self.serve, ServerState(), BOUNDS, lambda _: None, self.turn)
        made.connection_made(cast("asyncio.BaseTransport", Writing()))
        return made


class Writing(Transport):
    def write(self, _: bytes) -> None: ...

    def close(self) -> None:
        self.aborted = True


@pytest.fixture
async def listener() -> Listener:
    return Listener()


async def a_turn() -> None:
    await asyncio.sleep(0)


async def test_all_are_read_before_the_first_is_served(listener: Listener) -> None:
    for name in ("/a", "/b", "/c"):
        listener.connection().data_received(head("GET", name))
    assert not listener.served
    await a_turn()
    assert listener.served == [b"/a", b"/b", b"/c"]


async def test_no_more_than_so_many_wait_for_each_other(listener: Listener) -> None:
    for _ in range(MOST):
        assert not listener.served
        listener.connection().data_received(head("GET", "/"))
    assert len(listener.served) == MOST


async def test_nor_more_than_so_many_bytes(listener: Listener) -> None:
    request = head("POST", "/", content_length=str(len(BODY))) + BODY
    listener.connection().data_received(request)
    assert not listener.served
    listener.connection().data_received(request)
    assert len(listener.served) == 2
    listener.connection().data_received(request)
    assert len(listener.served) == 2, "they are counted anew"


async def test_who_brings_its_request_in_two_pieces_is_served_once(listener: Listener) -> None:
    connection = listener.connection()
    connection.data_received(head("POST", "/", content_length="2") + b"x")
    connection.data_received(b"x")
    await a_turn()
    assert listener.served == [b"/"]


async def test_who_has_left_meanwhile_is_not_served(listener: Listener) -> None:
    left, lost = listener.connection(), listener.connection()
    left.data_received(head("GET", "/left"))
    lost.data_received(head("GET", "/lost"))
    left.abort()
    lost.connection_lost(None)
    await a_turn()
    assert not listener.served
    left.connection_lost(None)


async def test_one_that_breaks_ends_nobody_else(listener: Listener) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    for name in ("/a", "/breaks", "/b"):
        listener.connection().data_received(head("GET", name))
    await a_turn()
    await a_turn()
    assert listener.served == [b"/a", b"/breaks", b"/b"]
    assert [str(context["exception"]) for context in told] == ["no"]
