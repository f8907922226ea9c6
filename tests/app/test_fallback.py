"""The ladder: a cheaper answer where the first choice has no room or failed, and where none may be asked."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.demo import Behaviour, Cut, Hang, Ok, Outage, serve_demo
from tests.app.watching import assert_nothing_is_held, counted
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import running
from tests.kit.waiting import bounded

PATH = "/api/v1/chat/completions"
CALL = head("POST", PATH, content_length=str(len(CHAT))) + CHAT
PLAIN = "breaker: off"
SENT = {"content_type": "application/json"}


@asynccontextmanager
async def ladder(
    *, fallback, dialect="openai", first="breaker: off", second="breaker: off", route="", path="/api"
):
    """Two demo upstreams, `first` and `second`, and a route that may fall from one to the other."""
    async with AsyncExitStack() as stack:
        demos = [
            await stack.enter_async_context(serve_demo(Behaviour(latency_s=0.0))) for _ in ("first", "second")
        ]
        base = "/tools" if dialect == "rest" else ""
        yaml = (
            "upstreams:\n"
            f"  first: {{url: '{demos[0].url}{base}', dialect: {dialect}, {first}}}\n"
            f"  second: {{url: '{demos[1].url}{base}', dialect: {dialect}, {second}}}\n"
            f"routes: [{{name: api, path: '{path}', upstream: first, fallback: {fallback}{route}}}]\n"
        )
        proxy = await stack.enter_async_context(running(yaml))
        yield proxy, demos[0].upstream, demos[1].upstream


async def test_when_the_first_is_full_the_second_answers_and_nobody_waits():
    async with (
        ladder(fallback="[{upstream: second}]", first="concurrency: 1", route=", queue: {size: 0}") as (
            proxy,
            first,
            second,
        ),
        connect(proxy.url) as holder,
        connect(proxy.url) as raw,
    ):
        first.behaviour.mode = Hang()
        await holder.send(CALL)
        await bounded(first.ledger.until(lambda: first.ledger.in_flight == 1))
        assert (await raw.post(PATH)).status == 200
        assert first.ledger.arrivals == second.ledger.arrivals == 1
        holder.leave()
        await assert_nothing_is_held(proxy)


async def test_when_its_breaker_is_open_the_second_answers_at_once():
    first = "breaker: {minimum_calls: 2, open_for: 1h}"
    async with (
        ladder(fallback="[{upstream: second}]", first=first) as (proxy, down, second),
        connect(proxy.url) as raw,
    ):
        down.behaviour.mode = Outage()
        assert [(await raw.post(PATH)).status for _ in range(5)] == [200] * 5
        assert down.ledger.arrivals == 2, "two failures, each asked of the second instead"
        assert second.ledger.arrivals == 5
        sums = await counted(proxy)
        assert sums["calls_refused_total"] == 3, "of the rung; the callers saw none of it"
        await assert_nothing_is_held(proxy)


async def test_a_fallback_with_a_model_rewrites_the_model_and_the_length_and_nothing_else():
    async with (
        ladder(fallback="[{upstream: second, model: a-much-cheaper-model}]") as (proxy, first, second),
        connect(proxy.url) as raw,
    ):
        first.behaviour.mode = Outage()
        body = b'{"temperature": 0.10,  "model":"demo", "messages":[{"role":"user","content":"h\\u00ef"}]}'
        reply = await raw.post(PATH, body, **SENT)
        assert reply.status == 200
        assert reply.json()["model"] == "a-much-cheaper-model"
        assert [entry.model for entry in first.ledger.entries] == ["demo"]
        (entry,) = second.ledger.entries
        assert entry.model == "a-much-cheaper-model"
        assert int(entry.header("content-length")) == entry.body_bytes > len(body) - 4


async def test_a_first_choice_that_has_room_is_never_rewritten():
    async with (
        ladder(fallback="[{model: cheaper}]") as (proxy, first, _),
        connect(proxy.url) as raw,
    ):
        assert (await raw.post(PATH)).json()["model"] == "demo"
        assert [entry.model for entry in first.ledger.entries] == ["demo"]


async def test_a_model_call_that_failed_before_its_answer_may_be_asked_of_the_second():
    async with (
        ladder(fallback="[{upstream: second}]") as (proxy, first, second),
        connect(proxy.url) as raw,
    ):
        first.behaviour.mode = Outage(answer="reset")
        assert (await raw.post(PATH)).status == 200
        assert second.ledger.arrivals == 1


@pytest.mark.parametrize(("method", "asks_the_second"), [("POST", False), ("DELETE", False), ("GET", True)])
async def test_a_tool_call_that_was_sent_and_failed_is_asked_again_only_if_it_changes_nothing(
    method, asks_the_second
):
    async with (
        ladder(fallback="[{upstream: second}]", dialect="rest", path="/api/{tool}") as (proxy, first, second),
        connect(proxy.url) as raw,
    ):
        first.behaviour.mode = Outage()
        await raw.send(head(method, "/api/transfer", content_length="0"))
        reply = await raw.reply()
        assert first.ledger.arrivals == 1
        assert second.ledger.arrivals == asks_the_second
        if asks_the_second:
            assert reply.status == 200
        else:
            assert reply.status == 502
            assert "check before repeating" in reply.json()["detail"]


async def test_a_tool_call_that_was_never_sent_may_be_asked_of_the_second():
    first = "breaker: {minimum_calls: 1, open_for: 1h}"
    async with (
        ladder(fallback="[{upstream: second}]", dialect="rest", path="/api/{tool}", first=first) as (
            proxy,
            down,
            second,
        ),
        connect(proxy.url) as raw,
    ):
        down.behaviour.mode = Outage()
        assert (await raw.post("/api/transfer")).status == 502
        assert (await raw.post("/api/transfer")).status == 200, "refused by the breaker, so not sent"
        assert second.ledger.arrivals == 1


async def test_a_callers_own_bucket_is_not_circumvented_by_falling_back():
    route = ", queue: {size: 0}, buckets: [{rate: 1 request/hour, per: caller}]"
    async with (
        ladder(fallback="[{upstream: second}]", route=route) as (proxy, first, second),
        connect(proxy.url) as raw,
    ):
        assert (await raw.post(PATH)).status == 200
        refused = await raw.post(PATH)
        assert refused.headers["x-backpressure-reason"] == "bucket_empty"
        assert (first.ledger.arrivals, second.ledger.arrivals) == (1, 0)


async def test_a_call_that_falls_back_after_a_failure_is_charged_to_its_caller_once():
    route = ", queue: {size: 0}, buckets: [{rate: 1 request/hour, per: caller}]"
    async with (
        ladder(fallback="[{upstream: second}]", route=route) as (proxy, first, second),
        connect(proxy.url) as raw,
    ):
        first.behaviour.mode = Outage()
        assert (await raw.post(PATH)).status == 200
        assert second.ledger.arrivals == 1


async def test_when_every_rung_says_no_the_caller_is_told_about_the_one_it_asked_for():
    full = "concurrency: 1, breaker: off"
    async with (
        ladder(fallback="[{upstream: second}]", first=full, second=full, route=", queue: {size: 0}") as (
            proxy,
            first,
            second,
        ),
        connect(proxy.url) as one,
        connect(proxy.url) as two,
        connect(proxy.url) as raw,
    ):
        for demo, holder in ((first, one), (second, two)):
            demo.behaviour.mode = Hang()
            await holder.send(CALL)
            await bounded(demo.ledger.until(lambda demo=demo: demo.ledger.in_flight == 1))
        refused = await raw.post(PATH)
        assert refused.status == 429
        assert refused.headers["x-backpressure-scope"] == "upstream:first"
        first.behaviour.mode = second.behaviour.mode = Ok()
        for holder in (one, two):
            assert (await holder.reply()).status == 200
        await assert_nothing_is_held(proxy)


async def test_a_stream_that_has_begun_is_never_begun_again_elsewhere():
    async with (
        ladder(fallback="[{upstream: second}]") as (proxy, first, second),
        connect(proxy.url) as raw,
    ):
        first.behaviour.mode = Cut()
        body = CHAT[:-1] + b',"stream":true}'
        await raw.send(head("POST", PATH, content_length=str(len(body))) + body)
        said = await bounded(raw.reader.read())
        assert b"data: " in said
        assert not said.endswith(b"0\r\n\r\n"), "no clean end"
        assert second.ledger.arrivals == 0
