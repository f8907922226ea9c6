from __future__ import annotations

import asyncio

import httpx
import pytest

from proxy.demo import Brownout, Cut, Ending, Hang, Ok, Outage, Refuse

CALLS = pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": []}),
        ("/v1/messages", {"model": "m", "messages": [], "max_tokens": 9}),
        ("/tools/weather/today", None),
        ("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search"}}),
    ],
)


def last(demo):
    return demo.upstream.ledger.entries[-1]


@CALLS
async def test_a_closed_connection_carries_no_byte(demo, bare, path, body):
    demo.upstream.behaviour.mode = Outage()
    async with bare() as caller:
        caller.send("POST", path, body)
        assert await caller.ends() == (b"", False)
    assert (last(demo).ending, last(demo).status) == (Ending.FAILED, None)


@CALLS
async def test_a_reset_connection_carries_no_byte(demo, bare, path, body):
    demo.upstream.behaviour.mode = Outage(answer="reset")
    async with bare() as caller:
        caller.send("POST", path, body)
        assert await caller.ends() == (b"", True)
    assert last(demo).ending is Ending.FAILED


@CALLS
async def test_an_outage_with_500_says_so_in_json(demo, http, path, body):
    demo.upstream.behaviour.mode = Outage(answer="500")
    answer = await http.post(path, json=body)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The upstream is out of order."
    assert last(demo).ending is Ending.FAILED
    assert demo.upstream.slots.taken == 0


@CALLS
async def test_a_refusal_tells_when_to_come_back(demo, http, path, body):
    demo.upstream.behaviour.mode = Refuse(retry_after_s=0.25)
    answer = await http.post(path, json=body)
    assert answer.status_code == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "250")
    assert answer.json()["error"]["message"]
    assert last(demo).ending is Ending.REFUSED


@CALLS
async def test_a_plain_answer_is_cut_by_a_reset_after_half_of_it(demo, bare, path, body):
    demo.upstream.behaviour.mode = Cut()
    async with bare() as caller:
        caller.send("POST", path, body)
        received, was_reset = await caller.ends()
    head, _, part = received.partition(b"\r\n\r\n")
    assert was_reset
    assert head.startswith(b"HTTP/1.1 200")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert len(part) == length // 2
    assert last(demo).ending is Ending.CUT


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_stream_is_cut_within_an_event(demo, bare, path, chat_body):
    demo.upstream.behaviour.mode = Cut()
    async with bare() as caller:
        caller.send("POST", path, chat_body(stream=True, max_tokens=8))
        received, was_reset = await caller.ends()
    assert was_reset
    assert b" every" not in received
    assert received.count(b'" for"') <= 1
    assert b" room" in received
    assert not received.endswith(b"\n\n\r\n")
    assert b"0\r\n\r\n" not in received
    assert last(demo).ending is Ending.CUT


async def test_a_stream_of_no_events_is_cut_too(demo, bare, chat_body):
    demo.upstream.behaviour.mode = Cut()
    demo.upstream.behaviour.stream_events = 0
    async with bare() as caller:
        caller.send("POST", "/v1/chat/completions", chat_body(stream=True))
        received, was_reset = await caller.ends()
    assert was_reset
    assert b"[DONE]" not in received


async def test_a_cut_answer_never_looks_complete_to_a_client(demo, http, chat_body):
    demo.upstream.behaviour.mode = Cut()
    for body in (chat_body(), chat_body(stream=True)):
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await http.post("/v1/chat/completions", json=body)


async def test_a_hung_call_is_answered_when_the_mode_is_switched_back(demo, http):
    demo.upstream.behaviour.mode = Hang()
    call = asyncio.create_task(http.get("/tools/weather"))
    await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 1)
    demo.upstream.behaviour.slots = 3
    assert last(demo).started_at is None
    demo.upstream.behaviour.mode = Ok()
    assert (await call).status_code == 200
    assert last(demo).ending is Ending.DONE


async def test_a_hung_call_meets_the_mode_that_follows(demo, http):
    demo.upstream.behaviour.mode = Hang()
    call = asyncio.create_task(http.get("/tools/weather"))
    await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 1)
    demo.upstream.behaviour.mode = Refuse()
    assert (await call).status_code == 429


async def test_a_brownout_lets_its_share_fail_and_the_same_ones_for_the_same_seed(demo, http):
    demo.upstream.behaviour.seed = 11
    rounds = []
    for _ in range(2):
        demo.upstream.reset()
        demo.upstream.behaviour.mode = Brownout(share=0.3)
        rounds.append([(await http.get("/tools/weather")).status_code for _ in range(60)])
    assert rounds[0] == rounds[1]
    assert 5 <= rounds[0].count(500) <= 35
    assert set(rounds[0]) == {200, 500}


async def test_a_brownout_serves_with_a_part_of_the_slots(demo, bare, hours):
    behaviour, ledger = demo.upstream.behaviour, demo.upstream.ledger
    behaviour.slots, behaviour.latency_s, behaviour.mode = 10, hours, Brownout(share=0, factor=0.3)
    async with bare() as a, bare() as b, bare() as c, bare() as d:
        for caller in (a, b, c, d):
            caller.send("GET", "/tools/weather")
        await ledger.until(lambda: ledger.in_flight == 4)
        assert (demo.upstream.slots.taken, demo.upstream.slots.waiting) == (3, 1)
        behaviour.mode = Ok()
        assert (demo.upstream.slots.taken, demo.upstream.slots.waiting) == (4, 0)


async def test_a_list_of_models_meets_the_modes_as_well(demo, http):
    demo.upstream.behaviour.mode = Refuse()
    assert (await http.get("/v1/models")).status_code == 429
    assert demo.upstream.ledger.peak_in_flight == 0
