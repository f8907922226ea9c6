"""The waiting room from outside: a caller's own cap, the bound in bytes, and whether promises are kept."""

from __future__ import annotations

from typing import Any

from proxy.demo import Hang, Ok
from tests.app.watching import assert_nothing_is_held, by_hand, counted, in_flight, waiting
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import Running, before_demo
from tests.kit.waiting import bounded, until

PATH = "/openai/v1/chat/completions"
OTHER_PATH = "/anthropic/v1/messages"
KNOWN = """callers:
  default: {concurrency: 5}
  known: [{name: ops, key: ops-key, concurrency: 1}]"""


def a_call(body: bytes = CHAT, **headers: str) -> bytes:
    return head("POST", PATH, content_length=str(len(body)), **headers) + body


async def of_route(proxy: Running, route: str = "openai") -> dict[str, Any]:
    (row,) = [row for row in (await proxy.state())["routes"] if row["route"] == route]
    return row


async def test_a_callers_cap_holds_over_all_routes_and_for_nobody_else():
    async with (
        before_demo(top=KNOWN, route="queue: {size: 0}") as proxy,
        connect(proxy.url) as holder,
        connect(proxy.url) as other,
        connect(proxy.url) as raw,
    ):
        ledger = proxy.upstream.ledger
        proxy.upstream.behaviour.mode = Hang()
        await holder.send(a_call(x_api_key="ops-key"))
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        reply = await raw.post(OTHER_PATH, x_api_key="ops-key")
        assert (reply.status, reply.headers["x-backpressure-reason"]) == (429, "cap_reached")
        assert reply.headers["x-backpressure-scope"] == "caller:ops"
        assert reply.headers["x-backpressure-limit"] == "1 in flight"
        await other.send(a_call(x_api_key="somebody else's"))
        await bounded(ledger.until(lambda: ledger.in_flight == 2))
        shown = {row["key"]: (row["in_flight"], row["slots"]) for row in (await proxy.state())["caps"]}
        assert (shown["caller:ops"], shown["caller:*"]) == ((1, 1), (1, 5))
        holder.leave()
        other.leave()
        proxy.upstream.behaviour.mode = Ok()
        await assert_nothing_is_held(proxy)
        assert (await raw.post(PATH, x_api_key="ops-key")).status == 200


async def test_what_waits_is_bounded_in_bytes_and_shown():
    body = CHAT + b" " * (40 * 1024 - len(CHAT))
    async with (
        before_demo(upstream="concurrency: 1", route="queue: {max_bytes: 64KiB}") as proxy,
        connect(proxy.url) as holder,
        connect(proxy.url) as second,
        connect(proxy.url) as third,
    ):
        ledger, behaviour = proxy.upstream.ledger, proxy.upstream.behaviour
        behaviour.mode = Hang()
        await holder.send(a_call())
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        await second.send(a_call(body))
        await until(lambda: waiting(proxy) == 1)
        assert (await counted(proxy))["queue_bytes"] == 40 * 1024
        assert {row["route"]: row["waiting_bytes"] for row in (await proxy.state())["routes"]}[
            "openai"
        ] == 40_960
        reply = await third.post(PATH, body)
        assert (reply.status, reply.headers["x-backpressure-reason"]) == (429, "queue_full")
        assert reply.headers["x-backpressure-limit"] == "0.0625 MiB waiting"
        behaviour.mode = Ok()
        holder.leave()
        assert (await second.reply()).status == 200
        await assert_nothing_is_held(proxy)
        assert (await counted(proxy))["queue_bytes"] == 0


async def test_who_comes_back_when_told_is_admitted_and_that_is_counted():
    route = "queue: {size: 0}\nbuckets: [{rate: 1 request/10s, per: route}]"
    async with before_demo(route=route) as proxy, connect(proxy.url) as raw:
        clock = by_hand(proxy)
        assert (await raw.post(PATH)).status == 200
        refused = await raw.post(PATH)
        assert (refused.status, refused.headers["x-should-retry"]) == (429, "true")
        assert (await of_route(proxy))["kept_share"] is None
        clock.advance(int(refused.headers["retry-after-ms"]) / 1000)
        assert (await raw.post(PATH)).status == 200
        assert (await of_route(proxy))["kept_share"] == 1.0
        assert (await counted(proxy))["returns_total"] == 1
        assert 'returns_total{kept="yes",priority="normal",route="openai"' in await proxy.metrics()
        assert in_flight(proxy) == 0
