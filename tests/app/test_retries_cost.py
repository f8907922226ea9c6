"""Retries of our own: when they come, who pays for them, and what the caller is told in the end."""

from __future__ import annotations

import asyncio

import pytest

from tests.app.retrying import (
    AT_LENGTH,
    AT_ONCE,
    BUSY,
    GET,
    ONE,
    SPENT,
    Case,
    ask,
    post,
    resets,
    retrying,
    status,
)
from tests.app.watching import assert_nothing_is_held, in_flight, waiting
from tests.kit.raw import connect, head
from tests.kit.running import running
from tests.kit.scripted import OK, Peer, Scripted, answering
from tests.kit.waiting import bounded, until


async def test_the_pause_is_by_chance_and_at_most_the_backoff():
    async with retrying(answering(BUSY, OK), AT_LENGTH) as case:
        case.proxy.proxy._pipeline._chance = lambda: 0.0
        assert (await ask(case)).status == 200


async def test_an_upstream_that_says_when_is_asked_no_sooner():
    told = BUSY.replace(b"x-which", b"retry-after: 3600\r\nx-which")
    async with retrying(answering(told, told, OK), "{backoff: 1ms, retry_after: 1h}") as case:
        assert (await ask(case, head("GET", "/x", x_deadline_ms="3599000"))).status == 503
        assert await case.results() == {"given_up": 1}, "it would have waited for so long"
        async with connect(case.proxy.url) as raw:
            await raw.send(head("GET", "/another"))
            await case.pausing()
            case.go_on()
            assert (await raw.reply()).status == 200


@pytest.mark.parametrize("says", [b"retry-after: 3", b"retry-after-ms: 2001", b"x-should-retry: false"])
async def test_an_upstream_that_wants_no_other_so_soon_is_taken_at_its_word(says):
    told = BUSY.replace(b"x-which", says + b"\r\nx-which")
    async with retrying(answering(told, OK), "{backoff: 1ms, retry_after: 2s}") as case:
        reply = await ask(case)
        assert (reply.status, reply.body) == (503, b"busy")
        name, _, value = says.decode().partition(": ")
        assert reply.headers[name] == value
        assert case.heard == 1


async def test_a_call_that_pauses_holds_no_permit():
    async with retrying(answering(BUSY, OK), AT_LENGTH, upstream="breaker: off, concurrency: 1") as case:
        async with connect(case.proxy.url) as raw:
            await raw.send(GET)
            await case.pausing()
            assert in_flight(case.proxy, "upstream:up") == 0
            assert (await ask(case)).status == 200, "another has all the room meanwhile"
            case.go_on()
            assert (await raw.reply()).status == 200


async def test_a_retry_waits_for_room_as_any_call_and_behind_first_attempts():
    async def serves(peer: Peer) -> None:
        while True:
            heard = await peer.request()
            order.append(heard.line.split(b" ")[1])
            if order[-1:] == [b"/holder"]:
                await bounded(let_go.wait())
            await peer.send(BUSY if len(order) == 1 else OK)

    order: list[bytes] = []
    let_go = asyncio.Event()
    async with (
        retrying(serves, AT_LENGTH, upstream="breaker: off, concurrency: 1") as case,
        connect(case.proxy.url) as again,
        connect(case.proxy.url) as holder,
        connect(case.proxy.url) as other,
    ):
        await again.send(head("GET", "/again"))
        await case.pausing()
        await holder.send(head("GET", "/holder"))
        await until(lambda: len(order) == 2)
        case.go_on()
        await until(lambda: waiting(case.proxy, "api") == 1)
        await other.send(head("GET", "/other"))
        await until(lambda: waiting(case.proxy, "api") == 2)
        let_go.set()
        for raw in (holder, other, again):
            assert (await raw.reply()).status == 200
        assert order == [b"/again", b"/holder", b"/other", b"/again"]


async def test_a_retry_that_no_budget_pays_for_is_not_waited_for():
    async with (
        retrying(answering(BUSY, OK), AT_LENGTH, upstream=SPENT) as case,
        connect(case.proxy.url) as raw,
    ):
        reply = await raw.get("/x")
        assert (reply.status, reply.body, reply.headers["x-which"]) == (503, b"busy", "first")
        assert await case.results() == {"given_up": 1}
        assert len(case.proxy.proxy._repeats) == 1, "should its caller repeat it, that is a retry"
        assert (await raw.get("/another")).status == 200, "the answer was whole: its connection goes on"


async def test_retries_pay_the_budget_and_who_finds_it_spent_is_told_the_first_answer():
    async with retrying(answering(BUSY, BUSY, OK), AT_LENGTH, upstream=ONE) as case:
        async with connect(case.proxy.url) as one, connect(case.proxy.url) as two:
            await one.send(GET)
            await two.send(GET)
            await case.pausing(2)
            case.go_on()
            assert sorted([(await one.reply()).status, (await two.reply()).status]) == [200, 503]
        assert case.heard == 3
        assert await case.results() == {"succeeded": 1, "refused": 1}
        refused = [line for line in case.proxy.lines() if line["event"] == "refused"]
        assert [(line["reason"], line["retry"]) for line in refused] == [("retry_budget_spent", True)]


async def test_a_breaker_that_opens_with_the_failure_is_not_waited_for():
    upstream = "breaker: {minimum_calls: 1, open_for: 1h}"
    async with retrying(answering(BUSY, OK), AT_ONCE, upstream=upstream) as case:
        assert (await ask(case)).status == 503
        assert await case.results() == {"given_up": 1}


async def test_a_caller_whose_deadline_comes_first_is_told_at_once():
    async with retrying(answering(BUSY, OK), AT_LENGTH) as case:
        assert (await ask(case, head("GET", "/x", x_deadline_ms="60000"))).status == 503
        assert await case.results() == {"given_up": 1}


async def test_the_callers_allowance_is_spent_once_and_the_upstreams_for_each_attempt():
    own = ", queue: {size: 0}, buckets: [{rate: 1 request/hour, per: caller}]"
    async with retrying(answering(BUSY, OK), AT_ONCE, route=own) as case:
        assert (await ask(case)).status == 200
    theirs = own.replace("caller", "upstream")
    async with retrying(answering(BUSY, OK), AT_ONCE, route=theirs) as case:
        reply = await ask(case)
        assert (reply.status, reply.body) == (503, b"busy")
        assert await case.results() == {"refused": 1}


async def test_when_the_second_attempt_is_answered_the_caller_gets_that_answer_whatever_it_says():
    async with retrying(answering(BUSY, status(503, b"x-which: second\r\n"), OK)) as case:
        reply = await ask(case)
        assert (reply.status, reply.headers["x-which"]) == (503, "second")
        assert case.heard == 2, "at most one more"
        assert await case.results() == {"failed": 1}


async def test_when_the_second_attempt_gets_no_answer_the_caller_gets_the_first_one():
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(BUSY)
        await peer.request()
        peer.reset()

    async with retrying(once, "{backoff: 1ms, calls: all}") as case:
        reply = await ask(case, post())
        assert (reply.status, reply.body) == (503, b"busy")
        assert await case.results() == {"failed": 1}


async def test_when_neither_is_answered_the_caller_is_told_once():
    async with retrying(resets) as case:
        reply = await ask(case)
        assert (reply.status, reply.headers["x-backpressure-reason"]) == (502, "upstream_failed")
        assert "retry-after" in reply.headers
        assert case.upstream.connections == 2
        failed = [line["retry"] for line in case.proxy.lines() if line["event"] == "failed"]
        assert failed == [False, True]


@pytest.mark.parametrize(
    ("answers", "retries"), [((BUSY, OK), 0), ((BUSY, BUSY), 1), ((BUSY, OK, BUSY, OK), 0)]
)
async def test_a_call_that_was_served_in_the_end_is_not_remembered_as_failed(answers, retries):
    """Its next twin is a first attempt: nobody has seen a failure."""
    async with retrying(answering(*answers)) as case:
        await ask(case)
        assert len(case.proxy.proxy._repeats) == retries


@pytest.mark.parametrize(
    ("other", "heard"), [(OK, (1, 1)), (BUSY, (2, 1))], ids=["which answers", "which fails too"]
)
async def test_a_fallback_is_asked_before_anything_is_repeated(other, heard):
    async with Scripted(answering(BUSY, OK)) as one, Scripted(answering(other)) as two:
        up = "{{url: '{}', dialect: rest, breaker: off}}"
        yaml = (
            f"upstreams: {{one: {up.format(one.url)}, two: {up.format(two.url)}}}\n"
            "routes:\n  - {name: api, path: /, upstream: one, fallback: [{upstream: two}],"
            " retries: {backoff: 1ms}}\n"
        )
        async with running(yaml) as proxy:
            assert (await ask(Case(proxy, one))).status == 200
            assert (len(one.requests), len(two.requests)) == heard
            await assert_nothing_is_held(proxy)
