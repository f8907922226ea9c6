"""A load generator for machines without wrk: closed loop, one request at a time on each connection.

python -m loadtests.raw_client PORT CONNECTIONS SECONDS [PATH BODY_FILE [HEADER_LINE …]]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import httptools
import uvloop

from loadtests.figures import percentile

PATH: Final = "/openai/v1/chat/completions"
HEADERS: Final = {"content-type": "application/json", "authorization": "Bearer measured"}


def chat_body(size: int, *, stream: bool = False) -> bytes:
    """A chat completion's request of exactly `size` bytes, most of them its prompt; at least 140 bytes."""
    asked: dict[str, Any] = {"model": "demo-model", "messages": [{"role": "user", "content": ""}]}
    asked |= {"max_tokens": 64, "stream": stream}
    asked["messages"][0]["content"] = "x" * (size - len(json.dumps(asked)))
    return json.dumps(asked).encode()


BODY: Final = chat_body(1024)


def wire_request(port: int, body: bytes = BODY, path: str = PATH, more: Sequence[str] = ()) -> bytes:
    """The one request that is sent, all in one piece; `more` are further lines of its head."""
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    lines += more
    return "\r\n".join([*lines, "", ""]).encode() + body


class Tally:
    """What all connections together saw. Latencies in seconds, a new connection's set-up included."""

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.latencies_s: list[float] = []
        self.broken = 0
        self.opened = 0
        self.is_over = False  # what ends from now on was ended by us


class Connection(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last is complete.

    `ended` is set when the other side has ended it, which counts as broken in the midst of an answer.
    """

    def __init__(self, request: bytes, tally: Tally, begun_at: float) -> None:
        self._request = request
        self._tally = tally
        self._sent_at = begun_at
        self._is_answered = False
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._tally.opened += 1
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        tally, now = self._tally, time.perf_counter()
        status = self._parser.get_status_code()
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        tally.latencies_s.append(now - self._sent_at)
        if self._parser.should_keep_alive():
            self._sent_at = now
            self._transport.write(self._request)
        else:
            self._is_answered = True
            self._transport.close()

    async def leave(self) -> None:
        """End the connection from our side, whatever is under way on it."""
        if not self.ended.is_set():
            self._is_answered = True
            self._transport.abort()
            await self.ended.wait()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._tally.broken += not (self._is_answered or self._tally.is_over)
        self.ended.set()


async def _call_for_ever(port: int, request: bytes, tally: Tally) -> None:
    """Keep one connection busy; open the next when the other side politely ends it after an answer."""
    loop = asyncio.get_running_loop()
    while not tally.broken:
        make = partial(Connection, request, tally, time.perf_counter())
        try:
            _, connection = await loop.create_connection(make, "127.0.0.1", port)
        except asyncio.CancelledError:
            tally.is_over = True  # it may have connected, and is closed before anybody has hold of it
            raise
        try:
            await connection.ended.wait()
        finally:
            await connection.leave()


async def measure(
    port: int, connections: int, seconds: float, request: bytes | None = None
) -> dict[str, Any]:
    """Requests, seconds, good answers and latencies of a closed loop against the port.

    `opened` counts connections. `broken` counts those ended in the midst of an answer; one ends the loops.
    """
    tally, request = Tally(), request or wire_request(port)
    begun_at = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(_call_for_ever(port, request, tally) for _ in range(connections)))
    except TimeoutError:
        pass  # the time is over: what is still under way is not counted
    good = sum(number for status, number in tally.statuses.items() if 200 <= status < 300)
    return {
        "requests": sum(tally.statuses.values()),
        "seconds": time.perf_counter() - begun_at,
        "good": good,
        "broken": tally.broken,
        "opened": tally.opened,
        "p50_ms": percentile(tally.latencies_s, 0.50) * 1000,
        "p99_ms": percentile(tally.latencies_s, 0.99) * 1000,
    }


if __name__ == "__main__":
    to_port = int(sys.argv[1])
    sent = None
    if len(sys.argv) > 5:
        sent = wire_request(to_port, Path(sys.argv[5]).read_bytes(), sys.argv[4], sys.argv[6:])
    figures = uvloop.run(measure(to_port, int(sys.argv[2]), float(sys.argv[3]), sent))
    print(json.dumps(figures))
