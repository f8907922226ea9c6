"""The body of a request on its way to the upstream, when it is pulled from the caller piece by piece."""

from __future__ import annotations

import asyncio

from proxy.begun import in_a_task
from proxy.upstream.connection import Connection
from proxy.upstream.contract import CallerGone, Downstream

LAST_CHUNK = b"0\r\n\r\n"


class Upload:
    """Pulls a body and frames it: `length` bytes, or in chunks if that is None and it is to be `framed`.

    The first piece is pulled before a connection is chosen, so that a caller who sends nothing holds none.
    """

    __slots__ = ("_downstream", "_framed", "_left", "finished")

    def __init__(self, downstream: Downstream, length: int | None, *, framed: bool = True) -> None:
        self._downstream = downstream
        self._left = length
        self._framed = framed
        self.finished = False

    async def begin(self, *, within_s: float) -> bytes | memoryview:
        """The first piece. Raises CallerGone, also when none comes within `within_s` seconds."""
        await in_a_task()
        try:
            async with asyncio.timeout(within_s):
                return await self.next()
        except TimeoutError:
            raise CallerGone(f"none of the request's body sent by the caller within {within_s:g}s") from None

    async def go_on(self, connection: Connection) -> None:
        """Send the rest, no faster than the upstream takes it. Raises CallerGone."""
        while not self.finished and not connection.closing:
            await connection.drained()
            connection.caller_sends()
            connection.write_on(await self.next())
        if self.finished:
            connection.sent()

    async def next(self) -> bytes | memoryview:
        """The next piece, framed; it may be empty. Raises CallerGone."""
        piece = await self._downstream.next_body()
        if self._left is None:
            if piece is None:
                self.finished = True
                return LAST_CHUNK if self._framed else b""
            return b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) if piece and self._framed else piece
        if piece is None or len(piece) > self._left:
            raise CallerGone("the request's body was not of the length it was said to be")
        self._left -= len(piece)
        self.finished = not self._left
        return piece
