"""The numbers an operator sees: they add up at every instant, and `/state` says the same."""

from __future__ import annotations

import asyncio
import random

import pytest

from proxy.demo import Behaviour, Hang, Ok
from tests.app.watching import assert_nothing_is_held, counted, in_flight, waiting
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo
from tests.kit.waiting import bounded, until

PATH = "/openai/v1/chat/completions"
CALL = head("POST", PATH, content_length=str(len(CHAT))) + CHAT
STREAMED = CHAT[:-1] + b',"stream":true}'


async def test_the_sums_hold_while_calls_wait_run_were_refused_and_have_left():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    route = "queue: {size: 3}\nshed: {normal: never, background: never}"
    async with before_demo(behaviour, upstream="concurrency: 2", route=route) as proxy:
        ledger, connections = proxy.upstream.ledger, []
        try:
            for number in range(7):  # 2 run, 3 wait, 2 are refused
                raw = connect(proxy.url)
                connections.append(raw)
                connection = await raw.__aenter__()
                await connection.send(CALL)
                if number < 5:
                    await until(lambda number=number: in_flight(proxy) + waiting(proxy) == number + 1)
                else:
                    assert (await connection.reply()).headers["x-backpressure-reason"] == "queue_full"
            await bounded(ledger.until(lambda: ledger.in_flight == 2))
            await connections.pop(4).__aexit__(None, None, None)
            await until(lambda: waiting(proxy) == 2)

            sums, shown = await counted(proxy), await proxy.state()
            assert sums["calls_offered_total"] == 7
            assert sums["calls_admitted_total"] == 2
            assert sums["calls_refused_total"] == 2
            assert sums["calls_left_total"] == 1
            assert sums["queue_depth"] == sum(lane["depth"] for lane in shown["lanes"]) == 2
            assert sums["calls_settled_total"] == 0
            held = {cap["key"]: (cap["in_flight"], cap["slots"]) for cap in shown["caps"]}
            assert held["upstream:openai"] == (2, 2)
            assert sums["in_flight"] == sum(cap["in_flight"] for cap in shown["caps"])
            assert sums["queue_oldest_seconds"] > 0
        finally:
            for raw in connections:
                await raw.__aexit__(None, None, None)
        behaviour.mode = Ok()
        await assert_nothing_is_held(proxy)


@pytest.mark.slow
async def test_after_a_mixed_run_every_call_that_came_in_went_out_by_one_door():
    """Plain and streamed calls, tools, retries, deadlines, other callers, and callers that leave half-way."""
    chance = random.Random(7)
    behaviour = Behaviour(slots=8, latency_s=0.003, stream_events=3, event_gap_s=0.001)
    upstream = "concurrency: 4\nretry_budget: {ratio: 0.1, floor: 2 per minute}"
    route = "queue: {size: 6, max_age: 200ms}\nbuckets: [{rate: 200 requests/s, burst: 40, per: caller}]"

    async with before_demo(behaviour, upstream=upstream, route=route) as proxy:
        statuses: list[int] = []

        async def agent(number: int) -> None:
            for _ in range(12):
                async with connect(proxy.url) as raw:
                    path, body = chance.choice(
                        [(PATH, CHAT), (PATH, STREAMED), ("/tools/search", b"{}"), ("/tools/report", b"")]
                    )
                    headers = {
                        "x_caller_id": f"agent-{number % 3}",
                        "x_priority": chance.choice(["critical", "normal", "background", "odd"]),
                        "x_stainless_retry_count": chance.choice(["0", "0", "0", "1"]),
                    }
                    if chance.random() < 0.1:
                        headers["x_deadline_ms"] = "1"
                    await raw.send(head("POST", path, content_length=str(len(body)), **headers) + body)
                    if chance.random() < 0.2:
                        raw.leave()
                    else:
                        statuses.append((await raw.reply()).status)

        async with asyncio.TaskGroup() as agents:
            for number in range(16):
                agents.create_task(agent(number))
        await assert_nothing_is_held(proxy)
        sums, ledger = await counted(proxy), proxy.upstream.ledger
        assert {200, 429} <= set(statuses)
        assert min(sums["calls_admitted_total"], sums["calls_refused_total"]) > 20
        assert ledger.arrivals <= sums["calls_admitted_total"]
        assert sums["log_lines_lost_total"] == 0
        assert all(line["event"] != "defect" for line in proxy.lines())
        assert set(statuses) <= {200, 429, 504}, "504: a deadline of a millisecond that passed on the way"
