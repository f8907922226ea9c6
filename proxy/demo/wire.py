"""One request and its answer on the wire, with what ASGI has no word for: the caller left, and a reset.

ASGI tells of a disconnect only to one who waits in `receive()`, and can end a connection only politely.
The uvicorn protocol below puts its connection into the scope, so that a wait ends with the connection and an
answer can be cut.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION: Final = "proxy.demo.connection"
LONGEST_BODY: Final = 64 * 1024 * 1024
_CLOSE_WITH_RESET: Final = struct.pack("ii", 1, 0)
_FLUSH_TURNS: Final = 100


class CallerLeftError(Exception):
    """The caller's connection is gone. Nothing can be sent any more."""


class BodyTooLongError(Exception):
    """The request's body is longer than `LONGEST_BODY`."""


class Connection:
    """One connection of a caller: whether it is there, and how to end it."""

    __slots__ = ("_transport", "_waiter", "gone")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiter: asyncio.Future[bool] | None = None
        self.gone = False

    async def wait(self, waiter: asyncio.Future[bool]) -> None:
        """Wait until `waiter` is True. When the connection ends it becomes False: raises CallerLeftError."""
        if self.gone:
            raise CallerLeftError
        self._waiter = waiter
        try:
            if not await waiter:
                raise CallerLeftError
        finally:
            self._waiter = None

    def end(self) -> None:
        """The connection is lost: whoever waits on it is told."""
        self.gone = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)

    def has_left(self) -> bool:
        """Has the caller closed? Asks the socket: the event loop may not have come to it yet."""
        if self.gone or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    async def close(self, *, reset: bool) -> None:
        """End the connection: with a reset (RST), or with a plain close (FIN) that says nothing of an answer.

        What was written before is pushed out first, as long as the caller takes it without delay.
        """
        for _ in range(_FLUSH_TURNS):
            if self.gone or not self._transport.get_write_buffer_size():
                break
            await asyncio.sleep(0)
        if reset and not self.gone:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_WITH_RESET)
        self._transport.abort()
        if not self.gone:
            # uvicorn would answer 500 by itself if the call returned before it knows the connection lost.
            lost: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiter = lost
            await lost
            self._waiter = None


class DemoProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with its `Connection` in `scope["extensions"]`."""

    connection: Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Give every connection its object."""
        super().connection_made(transport)
        self.connection = Connection(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the call that is being served."""
        super().connection_lost(exc)
        # uvicorn keeps this timer running after a reset.
        self._unset_keepalive_if_required()
        self.connection.end()

    def on_message_begin(self) -> None:
        """Add the connection to the scope of each request."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.connection}  # type: ignore[dict-item]  # ours, not ASGI's


class Wire:
    """A request being read and its answer being written."""

    __slots__ = ("_receive", "_send", "connection", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.connection: Connection = scope["extensions"][EXTENSION]
        except KeyError:
            raise RuntimeError(
                "serve DemoUpstream with serve_demo(): it needs uvicorn with DemoProtocol"
            ) from None
        self.scope = scope
        self.status: int | None = None
        self._receive = receive
        self._send = send

    async def read(self, entry: Any = None) -> bytes:
        """The whole body; `entry.body_bytes` grows with it. Raises CallerLeftError or BodyTooLongError."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerLeftError
            part = message.get("body", b"")
            size += len(part)
            if entry is not None:
                entry.body_bytes = size
            if size > LONGEST_BODY:
                raise BodyTooLongError
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, part: bytes, *, last: bool = False) -> None:
        """Send a part of the body, at the caller's pace. Raises CallerLeftError."""
        await self._send({"type": "http.response.body", "body": part, "more_body": not last})
        if self.connection.gone:
            raise CallerLeftError

    async def pause(self, seconds: float) -> None:
        """Let time pass; none at all for 0. Raises CallerLeftError as soon as the caller leaves."""
        if seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _set, waiter)
        try:
            await self.connection.wait(waiter)
        finally:
            timer.cancel()


def _set(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(True)
