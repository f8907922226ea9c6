"""An upstream that streams events, cheaply enough to feed any proxy: one timer for all its streams.

    python -m loadtests.sse_origin PORT EVENTS_PER_S

Every answer is `text/event-stream` in chunks, an event a chunk, as models send them. The streams are spread
evenly over the interval between two events of one of them, for agents do not tick together. Each event
tells the monotonic time at which it was written, which the other end on the same machine can subtract. At
0 events/s a stream says one event and then nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final

import uvloop

from loadtests.origin import Origin

STAMP: Final = b'"at":"'
DIGITS: Final = 20
"""Of a stamp: nanoseconds, with leading zeros, so that every event has the same length."""
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BEFORE: Final = b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk",' + STAMP
_AFTER: Final = b'","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_SIZE: Final = b"%x\r\n" % (len(_BEFORE) + DIGITS + len(_AFTER))
TICK_S: Final = 0.001
"""The finest that the loop's timers do (libuv counts milliseconds)."""


def chunk(at_ns: int) -> bytes:
    """One event, framed as a chunk."""
    return b"".join((_SIZE, _BEFORE, b"%020d" % at_ns, _AFTER, b"\r\n"))


class Streams:
    """All open streams, in groups: each tick is one group's turn to be sent an event."""

    def __init__(self, per_s: float) -> None:
        self._groups: list[set[asyncio.Transport]] = [
            set() for _ in range(round(1 / per_s / TICK_S) if per_s else 1)
        ]
        self._runs = per_s > 0

    def add(self, transport: asyncio.Transport) -> None:
        """To the smallest group, so that they stay even."""
        min(self._groups, key=len).add(transport)

    def discard(self, transport: asyncio.Transport) -> None:
        for group in self._groups:
            group.discard(transport)

    def run(self) -> None:
        """Begin to tick, for ever."""
        loop = asyncio.get_running_loop()
        if self._runs:
            self._tick(loop, loop.time(), 0)

    def _tick(self, loop: asyncio.AbstractEventLoop, due_at: float, turn: int) -> None:
        # What is late is caught up, so that the rate holds.
        while due_at <= loop.time():
            for transport in self._groups[turn]:
                transport.write(chunk(time.monotonic_ns()))
            turn = (turn + 1) % len(self._groups)
            due_at += TICK_S
        loop.call_at(due_at, self._tick, loop, due_at, turn)


class SseOrigin(Origin):
    """One connection: its first complete request opens a stream, which ends with the connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def on_message_complete(self) -> None:
        self._transport.write(_HEAD + chunk(time.monotonic_ns()))
        self._streams.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._streams.discard(self._transport)


async def serve(port: int, per_s: float) -> None:
    """Stream on the loopback interface until cancelled."""
    streams = Streams(per_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: SseOrigin(streams), "127.0.0.1", port, backlog=4096
    )
    streams.run()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
