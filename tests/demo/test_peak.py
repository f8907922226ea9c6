"""The peak of calls in flight leaves out a call whose caller has closed, though nobody has noticed yet."""

from __future__ import annotations

import asyncio

from proxy.demo import Behaviour, Hang, serve_demo
from proxy.demo.ledger import Ending, Entry, Ledger


def work(ledger: Ledger, *, has_left: bool = False, tool: str = "") -> Entry:
    entry = ledger.arrive("POST", "/", "", [])
    entry.tool = tool
    ledger.begin_work(entry, lambda: has_left)
    return entry


def test_who_has_left_is_counted_out_before_a_new_peak_and_only_once():
    ledger = Ledger()
    gone, here = work(ledger, has_left=True, tool="search"), work(ledger, tool="search")
    assert (ledger.peak_in_flight, ledger.peak_by_tool) == (1, {"search": 1})
    ledger.end(gone, Ending.LEFT)
    assert ledger.in_flight == 1
    ledger.end(here, Ending.DONE)
    assert ledger.in_flight == 0
    assert ledger.ended[Ending.LEFT] == ledger.ended[Ending.DONE] == 1


def test_a_peak_of_one_tool_is_looked_at_also_below_the_peak_of_all():
    ledger = Ledger()
    for other in [work(ledger), work(ledger), work(ledger)]:
        ledger.end(other, Ending.DONE)
    work(ledger, has_left=True, tool="search")
    work(ledger, tool="search")
    assert ledger.peak_by_tool == {"search": 1}


async def test_a_connection_that_was_closed_is_seen_before_the_loop_comes_to_it():
    async with serve_demo(Behaviour(mode=Hang())) as demo, asyncio.timeout(20):
        ledger, host_port = demo.upstream.ledger, demo.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(*host_port)
        writer.write(b"POST /tools/search HTTP/1.1\r\nhost: demo\r\ncontent-length: 0\r\n\r\n")
        await ledger.until(lambda: ledger.in_flight == 1)
        [has_left] = ledger._in_work.values()
        assert not has_left()
        writer.transport.get_extra_info("socket").shutdown(1)  # no turn of the loop since
        assert has_left()
        writer.close()
        await ledger.until(lambda: ledger.in_flight == 0)
