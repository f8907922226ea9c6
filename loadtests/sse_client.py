"""Callers of many streams at once, and what the proxy between spends on them.

    python -m loadtests.sse_client events PORT PATH PID STREAMS EVENTS_PER_S SECONDS
    python -m loadtests.sse_client memory PORT PATH PID STREAMS

Prints one line of JSON. `events` counts the events of a window and how late each came after its stamp, and
reads the CPU time of process PID at both ends of it (0: nobody's). `memory` reads what PID holds for itself
with no stream, with a fifth of them and with all of them open.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final, cast

import uvloop

from loadtests.figures import percentile
from loadtests.raw_client import chat_body, wire_request
from loadtests.running import cpu_s, memory_kib
from loadtests.sse_origin import DIGITS, STAMP

AT_ONCE: Final = 50
"""Connections being opened at the same time: below every proxy's backlog."""
OPEN_WITHIN_S: Final = 20.0
SETTLE_S: Final = 0.5
_EVENT: Final = len(STAMP) + DIGITS


class Seen:
    """What all streams together saw while `counts` is set. Delays in nanoseconds."""

    def __init__(self) -> None:
        self.counts = False
        self.delays_ns: list[int] = []
        self.lost = 0


class Stream(asyncio.Protocol):
    """One stream. `opened` is set with its first event, or when it ends before; only the first is good."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self._request = request
        self._seen = seen
        self._rest = b""
        self.events = 0
        self.opened = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_ns, seen = time.monotonic_ns(), self._seen
        data = self._rest + data
        end, begin = 0, data.find(STAMP)
        while begin >= 0 and len(data) >= begin + _EVENT:
            end = begin + _EVENT
            self.events += 1
            if seen.counts:
                seen.delays_ns.append(now_ns - int(data[end - DIGITS : end]))
            begin = data.find(STAMP, end)
        self._rest = data[max(end, len(data) - _EVENT) :]  # a stamp may come in two pieces
        if self.events and not self.opened.is_set():
            self.opened.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._seen.lost += 1
        self.opened.set()


async def open_streams(port: int, path: str, number: int, seen: Seen) -> list[Stream]:
    """So many more streams, each with its first event. TimeoutError when they do not come."""
    request, room = wire_request(port, chat_body(1024, stream=True), path), asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one() -> Stream:
        async with room:
            _, stream = await loop.create_connection(lambda: Stream(request, seen), "127.0.0.1", port)
            await stream.opened.wait()
            return stream

    async with asyncio.timeout(OPEN_WITHIN_S):
        return list(await asyncio.gather(*(one() for _ in range(number))))


async def events(port: int, path: str, pid: int, number: int, per_s: float, seconds: float) -> dict[str, Any]:
    """CPU and delays of one window, over streams that were all open before it began."""
    seen = Seen()
    streams = await open_streams(port, path, number, seen)
    await asyncio.sleep(SETTLE_S)
    cpu_before_s, own_before_s, begun_at = cpu_s(pid) if pid else 0.0, time.process_time(), time.monotonic()
    seen.counts = True
    await asyncio.sleep(seconds)
    seen.counts = False
    took_s, own_s = time.monotonic() - begun_at, time.process_time() - own_before_s
    cpu_used_s = (cpu_s(pid) if pid else 0.0) - cpu_before_s
    lost = seen.lost
    for stream in streams:
        stream.transport.abort()
    delays_ns = [float(delay) for delay in seen.delays_ns]
    return {
        "events": len(delays_ns),
        "expected": number * per_s * took_s,
        "seconds": took_s,
        "lost": lost,
        "cpu_s": cpu_used_s,
        "generator_busy": own_s / took_s,
        "p50_ms": percentile(delays_ns, 0.50) / 1e6,
        "p99_ms": percentile(delays_ns, 0.99) / 1e6,
    }


async def memory(port: int, path: str, pid: int, number: int) -> dict[str, Any]:
    """Bytes of the process with 0, a fifth and all of `number` idle streams open."""
    seen, streams = Seen(), []
    held = [(0, own_bytes(pid))]
    for more in (number // 5, number - number // 5):
        streams += await open_streams(port, path, more, seen)
        await asyncio.sleep(SETTLE_S)
        held.append((len(streams), own_bytes(pid)))
    opened = sum(stream.events > 0 for stream in streams) - seen.lost
    for stream in streams:
        stream.transport.abort()
    return {"held": held, "opened": opened, "lost": seen.lost}


def own_bytes(pid: int) -> int:
    """Bytes that would be free without this process: its private pages."""
    return sum(kib * 1024 for kind, kib in memory_kib(pid).items() if kind.startswith("Private_"))


def main(arguments: list[str]) -> int:
    what, (port, path, pid, number), rest = arguments[0], arguments[1:5], arguments[5:]
    common = int(port), path, int(pid), int(number)
    run = events(*common, *map(float, rest)) if what == "events" else memory(*common)
    print(json.dumps(uvloop.run(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
