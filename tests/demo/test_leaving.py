"""A caller who leaves frees what it held at once, wherever its call was."""

from __future__ import annotations

import pytest

from proxy.demo import Ending, Hang


def endings(demo):
    return [entry.ending for entry in demo.upstream.ledger.entries]


async def test_while_it_is_served(demo, bare, hours):
    demo.upstream.behaviour.latency_s = hours
    ledger = demo.upstream.ledger
    async with bare() as caller:
        caller.send("GET", "/tools/weather")
        await ledger.until(lambda: demo.upstream.slots.taken == 1)
        assert ledger.in_flight == 1
        await caller.leave()
        await ledger.until(lambda: ledger.in_flight == 0)
    assert endings(demo) == [Ending.LEFT]
    assert demo.upstream.slots.taken == 0


async def test_while_it_waits_for_a_slot(demo, bare, hours):
    demo.upstream.behaviour.slots, demo.upstream.behaviour.latency_s = 1, hours
    ledger, slots = demo.upstream.ledger, demo.upstream.slots
    async with bare() as first, bare() as second, bare() as third:
        for number, caller in enumerate((first, second, third), start=1):
            caller.send("GET", "/tools/weather")
            await ledger.until(lambda number=number: ledger.in_flight == number)
        await second.leave()
        await ledger.until(lambda: ledger.in_flight == 2)
        assert (slots.taken, slots.waiting) == (1, 1)
        await first.leave()
        await ledger.until(lambda: ledger.entries[2].started_at is not None)
        assert (slots.taken, slots.waiting) == (1, 0)
        assert endings(demo) == [Ending.LEFT, Ending.LEFT, None]
        assert ledger.entries[1].started_at is None


async def test_while_it_hangs(demo, bare):
    demo.upstream.behaviour.mode = Hang()
    ledger = demo.upstream.ledger
    async with bare() as caller:
        caller.send("GET", "/tools/weather")
        await ledger.until(lambda: ledger.in_flight == 1)
        await caller.leave()
        await ledger.until(lambda: ledger.in_flight == 0)
    assert endings(demo) == [Ending.LEFT]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_in_the_middle_of_a_stream(demo, bare, chat_body, hours, path):
    demo.upstream.behaviour.event_gap_s = hours
    ledger = demo.upstream.ledger
    async with bare() as caller:
        caller.send("POST", path, chat_body(stream=True, max_tokens=9))
        await caller.reader.readuntil(b"There")
        await caller.leave()
        await ledger.until(lambda: ledger.in_flight == 0)
    assert endings(demo) == [Ending.LEFT]
    assert ledger.entries[0].status == 200


async def test_in_the_middle_of_a_stream_that_it_does_not_read(demo, bare, chat_body):
    demo.upstream.behaviour.stream_events = 1_000_000
    ledger = demo.upstream.ledger
    async with bare() as caller:
        caller.send("POST", "/v1/chat/completions", chat_body(stream=True))
        await caller.reader.readuntil(b"There")
        await caller.leave()
        await ledger.until(lambda: ledger.in_flight == 0)
    assert endings(demo) == [Ending.LEFT]


async def test_before_its_body_is_complete(demo, bare):
    ledger = demo.upstream.ledger
    async with bare() as caller:
        caller.send("POST", "/tools/weather", b"12345", content_length="1000")
        await ledger.until(lambda: ledger.arrivals == 1)
        await caller.leave()
        await ledger.until(lambda: ledger.ended[Ending.LEFT] == 1)
    assert ledger.entries[0].body_bytes == 5
    assert ledger.peak_in_flight == 0


async def test_with_a_reset(demo, bare, hours):
    demo.upstream.behaviour.latency_s = hours
    ledger = demo.upstream.ledger
    async with bare() as caller:
        caller.send("GET", "/tools/weather")
        await ledger.until(lambda: ledger.in_flight == 1)
        caller.writer.transport.abort()
        await ledger.until(lambda: ledger.in_flight == 0)
    assert endings(demo) == [Ending.LEFT]
