"""The source and the callers of streams that are measured: who counts what, over real sockets."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.compare.streams import why_void
from loadtests.raw_client import PATH, chat_body, wire_request
from loadtests.sse_client import Seen, Stream, events, memory, open_streams, own_bytes
from loadtests.sse_origin import DIGITS, STAMP, TICK_S, SseOrigin, Streams, chunk


@pytest.fixture(autouse=True)
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.sse_client.SETTLE_S", 0.01)


@asynccontextmanager
async def streaming(per_s: float) -> AsyncIterator[tuple[int, Streams]]:
    streams = Streams(per_s)
    server = await asyncio.get_running_loop().create_server(lambda: SseOrigin(streams), "127.0.0.1", 0)
    streams.run()
    async with server:
        yield server.sockets[0].getsockname()[1], streams


async def test_the_source_sends_stamped_events_in_chunks_until_its_caller_leaves() -> None:
    before_ns = time.monotonic_ns()
    async with streaming(100) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(wire_request(port, chat_body(1024, stream=True)))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        stamps = []
        for _ in range(5):
            size = int(await reader.readuntil(b"\r\n"), 16)
            event = await reader.readexactly(size + 2)
            assert event.endswith(b"\n\n\r\n")
            stamps.append(int(event.partition(b'"at":"')[2][:20]))
        writer.close()
        await writer.wait_closed()
    assert stamps == sorted(stamps)
    assert before_ns < stamps[0]
    assert stamps[-1] < time.monotonic_ns()


def test_streams_are_spread_over_the_interval_between_two_events() -> None:
    streams = Streams(50)
    groups = streams._groups
    assert len(groups) * TICK_S == pytest.approx(1 / 50)
    for _ in range(45):
        streams.add(asyncio.Transport())
    assert sorted({len(group) for group in groups}) == [2, 3]


async def test_a_window_counts_the_events_that_were_due_in_it() -> None:
    async with streaming(100) as (port, _):
        told = await events(port, PATH, os.getpid(), 4, 100.0, 0.3)
    assert told["lost"] == 0
    assert told["expected"] == pytest.approx(4 * 100 * told["seconds"])
    assert told["events"] > 4  # not only those that open the streams
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert told["cpu_s"] >= 0


STAMP_ENDS = chunk(0).index(STAMP) + len(STAMP) + DIGITS


@pytest.mark.parametrize("cut", [1, 5, 60, 70, STAMP_ENDS - 1, STAMP_ENDS, STAMP_ENDS + 1, -1])
def test_an_event_counts_once_however_it_is_cut(cut: int) -> None:
    seen = Seen()
    seen.counts = True
    stream = Stream(b"", seen)
    wire = chunk(time.monotonic_ns()) * 3
    stream.data_received(wire[:cut])
    stream.data_received(wire[cut:])
    assert stream.events == len(seen.delays_ns) == 3
    assert min(seen.delays_ns) > 0


async def test_events_outside_the_window_are_not_counted() -> None:
    seen = Seen()
    stream = Stream(b"", seen)
    stream.data_received(chunk(time.monotonic_ns()))
    assert (stream.events, seen.delays_ns) == (1, [])


async def test_memory_is_read_with_none_with_some_and_with_all_streams_open() -> None:
    async with streaming(0) as (port, _):
        told = await memory(port, PATH, os.getpid(), 10)
    assert [number for number, _ in told["held"]] == [0, 2, 10]
    assert all(held > 1_000_000 for _, held in told["held"])
    assert (told["opened"], told["lost"]) == (10, 0)


async def test_streams_that_end_at_once_are_lost_and_not_opened() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        seen = Seen()
        streams = await open_streams(server.sockets[0].getsockname()[1], PATH, 3, seen)
    assert seen.lost == 3
    assert [stream.events for stream in streams] == [0, 0, 0]


def test_private_memory_grows_with_what_is_held() -> None:
    before = own_bytes(os.getpid())
    held = bytearray(os.urandom(1)) * 20_000_000
    assert own_bytes(os.getpid()) - before > 15_000_000
    del held


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({}, ""),
        ({"events": 980}, "98.0% of the events came"),
        ({"lost": 2}, "2 streams ended early"),
        ({"cpu_s": 0.97}, "core 97% busy"),
    ],
)
def test_a_window_says_why_it_proves_nothing(own: dict[str, float], said: str) -> None:
    stands = {"events": 1000, "expected": 1000, "lost": 0, "cpu_s": 0.5, "seconds": 1, "generator_busy": 0.3}
    why = why_void(stands | own)
    assert why.startswith(said)
    assert bool(why) == bool(said)
