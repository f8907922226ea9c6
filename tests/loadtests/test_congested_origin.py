"""The upstream that congests: how slow it becomes, and what it writes down."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.congested_origin import Congestion, Connection, Entry, Upstream

CALL = b"POST / HTTP/1.1\r\nx-call-id: %b\r\ncontent-length: 2\r\n\r\n{}"


def begun(congestion: Congestion, number: int, now: float) -> list[Entry]:
    entries = [Entry(str(number), now) for number in range(number)]
    for entry in entries:
        congestion.begin(entry, now)
    return entries


@pytest.mark.parametrize(
    ("in_flight", "throughput"), [(1, 10), (10, 100), (20, 60), (40, 25), (100, 1000 / 11.8 * 10 / 100)]
)
def test_throughput_is_full_at_the_slots_and_falls_beyond_them(in_flight: int, throughput: float) -> None:
    congestion = Congestion(slots=10, service_s=0.1)
    begun(congestion, in_flight, 5.0)
    after_s = congestion.next_done_s()
    assert after_s is not None
    assert in_flight / after_s == pytest.approx(throughput, rel=0.01)
    assert len(congestion.take_done(5.0 + after_s / 2)) == 0
    assert len(congestion.take_done(5.0 + after_s)) == in_flight
    assert (congestion.in_flight, congestion.next_done_s()) == (0, None)


def test_all_become_slower_when_others_come_and_faster_when_they_leave() -> None:
    congestion = Congestion(slots=1, service_s=1.0)
    first, second = Entry("first", 0.0), Entry("second", 0.5)
    congestion.begin(first, 0.0)
    congestion.begin(second, 0.5)  # two on one slot: 10/3 as slow
    assert congestion.next_done_s() == pytest.approx(0.5 * 10 / 3)
    congestion.leave(second, 0.5 + 0.25 * 10 / 3)
    assert congestion.next_done_s() == pytest.approx(0.25)
    assert congestion.take_done(0.5 + 0.25 * 10 / 3 + 0.25) == [first]
    assert (first.done, second.done) == (True, False)
    assert second.ended_at == pytest.approx(0.5 + 0.25 * 10 / 3)


def test_they_are_done_in_the_order_in_which_they_came_and_a_leaver_holds_nobody_up() -> None:
    congestion = Congestion(slots=10, service_s=0.1)
    entries = []
    for number in range(3):
        entries += begun(congestion, 1, number / 100)
    congestion.leave(entries[0], 0.05)
    assert congestion.take_done(0.105) == []
    assert congestion.take_done(0.11) == [entries[1]]
    assert congestion.take_done(0.2) == [entries[2]]
    assert (congestion.done, congestion.late_s) == (2, pytest.approx(0.08))


@asynccontextmanager
async def upstream(service_s: float = 0.01, slots: int = 10) -> AsyncIterator[tuple[int, Upstream]]:
    served, connections = Upstream(Congestion(slots, service_s)), []

    def connect() -> Connection:
        connections.append(Connection(served))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], served
        for connection in connections:
            connection._transport.abort()
        await asyncio.sleep(0)


async def answered(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))


async def test_each_attempt_is_written_down_and_the_ledger_can_be_read() -> None:
    async with upstream() as (port, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for attempt in (b"7.0", b"7.1"):
            writer.write(CALL % attempt)
            await answered(reader)
        writer.write(b"GET /ledger HTTP/1.1\r\n\r\n")
        ledger = json.loads(await answered(reader))
        writer.close()
        await writer.wait_closed()
    assert [(call, done) for call, _, _, done in ledger["entries"]] == [("7.0", True), ("7.1", True)]
    for _, begun_at, ended_at, _ in ledger["entries"]:
        assert ended_at - begun_at >= 0.009
        assert ended_at <= ledger["at"]
    assert ledger["peak_in_flight"] == served.peak_in_flight == 1


async def test_a_caller_who_leaves_gives_its_slot_back_and_is_no_part_of_a_new_peak() -> None:
    async with upstream(service_s=60.0) as (port, served):
        before, after = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        before[1].write(CALL % b"1.0")
        async with asyncio.timeout(5):
            while not served.entries:
                await asyncio.sleep(0)
            # Nothing else runs before both have reached the server: it reads them in any order.
            before[1].transport.get_extra_info("socket").shutdown(1)
            os.write(after[1].transport.get_extra_info("socket").fileno(), CALL % b"2.0")
            while len(served.entries) < 2 or not served.entries[0].ended_at:
                await asyncio.sleep(0)
        for _, writer in (before, after):
            writer.transport.abort()
        await asyncio.sleep(0)
    assert served.peak_in_flight == 1
    assert [entry.done for entry in served.entries] == [False, False]


async def test_a_call_whose_caller_leaves_is_not_done() -> None:
    async with upstream(service_s=60.0) as (port, served):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CALL % b"1.0")
        async with asyncio.timeout(5):
            while not served.entries:
                await asyncio.sleep(0)
            writer.close()
            while not served.entries[0].ended_at:
                await asyncio.sleep(0)
    assert not served.entries[0].done
    assert served._congestion.in_flight == 0


async def test_a_second_call_before_the_answer_ends_the_connection() -> None:
    async with upstream(service_s=60.0) as (port, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CALL % b"1.0" + CALL % b"2.0")
        assert await reader.read() == b""
        writer.close()
        assert [entry.call for entry in served.entries] == ["1.0"]
