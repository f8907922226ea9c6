from __future__ import annotations

import asyncio

from proxy.demo import Ending, Ledger
from proxy.demo.ledger import COUNTED_TOOLS, KEPT_ENTRIES


async def test_an_entry_has_what_was_sent(demo, http, chat_body):
    await http.post(
        "/v1/chat/completions?a=%20b",
        json=chat_body(stream=True),
        headers=[
            ("x-call-id", "c-1"),
            ("x-priority", "critical"),
            ("authorization", "Bearer secret"),
            ("x-many", "1"),
            ("x-many", "2: é".encode("latin-1")),
        ],
    )
    [entry] = demo.upstream.ledger.entries
    assert (entry.method, entry.path, entry.query) == ("POST", "/v1/chat/completions", "a=%20b")
    assert (entry.dialect, entry.model, entry.tool) == ("openai", "demo-large", "")
    assert (entry.call_id, entry.priority) == ("c-1", "critical")
    assert entry.header("authorization") == "Bearer secret"
    assert entry.header("x-api-key") is None
    assert [value for name, value in entry.headers if name == "x-many"] == ["1", "2: é"]
    assert entry.body_bytes == int(entry.header("content-length"))
    assert (entry.status, entry.ending, entry.is_streamed, entry.is_work) == (200, Ending.DONE, True, True)
    assert entry.arrived_at <= entry.started_at <= entry.ended_at


async def test_the_counters_add_up(demo, http):
    await http.get("/tools/weather")
    await http.get("/nowhere")
    await http.get("/v1/models")
    snapshot = demo.upstream.ledger.snapshot()
    assert snapshot == {
        "arrivals": 3,
        "in_flight": 0,
        "peak_in_flight": 1,
        "peak_by_tool": {"weather": 1},
        "completed": 2,
        "ended": {"done": 2, "failed": 1, "refused": 0, "cut": 0, "left": 0},
    }


async def test_the_peaks_count_the_waiting_and_the_served_together_and_by_tool(demo, bare, hours):
    demo.upstream.behaviour.slots, demo.upstream.behaviour.latency_s = 1, hours
    ledger = demo.upstream.ledger
    async with bare() as a, bare() as b, bare() as c:
        a.send("GET", "/tools/weather")
        b.send("GET", "/tools/weather/x")
        c.send("GET", "/tools/news")
        await ledger.until(lambda: ledger.in_flight == 3)
    await ledger.until(lambda: ledger.in_flight == 0)
    assert ledger.peak_in_flight == 3
    assert ledger.peak_by_tool == {"weather": 2, "news": 1}


async def test_a_reset_keeps_only_what_is_open(demo, bare, http, hours):
    ledger = demo.upstream.ledger
    for _ in range(3):
        await http.get("/tools/weather")
    demo.upstream.behaviour.latency_s = hours
    async with bare() as caller:
        caller.send("GET", "/tools/news")
        await ledger.until(lambda: ledger.in_flight == 1)
        demo.upstream.reset()
        assert (ledger.arrivals, ledger.completed, ledger.peak_in_flight) == (1, 0, 1)
        assert [entry.tool for entry in ledger.entries] == ["news"]
        assert ledger.peak_by_tool == {"news": 1}
    await ledger.until(lambda: ledger.in_flight == 0)
    assert (ledger.arrivals, ledger.ended[Ending.LEFT]) == (1, 1)


def test_old_entries_fall_off_and_the_counters_stay_exact():
    ledger = Ledger()
    for number in range(KEPT_ENTRIES + 10):
        entry = ledger.arrive("GET", f"/tools/t{number}", "", [])
        entry.tool = f"t{number}"
        ledger.begin_work(entry)
        ledger.end(entry, Ending.DONE)
    assert len(ledger.entries) == KEPT_ENTRIES
    assert ledger.entries[0].number == 11
    assert (ledger.arrivals, ledger.completed) == (KEPT_ENTRIES + 10,) * 2
    assert (ledger.in_flight, ledger.peak_in_flight) == (0, 1)
    assert len(ledger.peak_by_tool) == COUNTED_TOOLS


async def test_whoever_waits_for_the_ledger_is_woken_by_each_change():
    ledger = Ledger()
    waiting = asyncio.create_task(ledger.until(lambda: ledger.completed == 2))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        ledger.end(ledger.arrive("GET", "/", "", []), Ending.DONE)
    await asyncio.wait_for(waiting, 10)
