"""MCP batches on real sockets: each call is admitted or refused by itself, and every one is answered."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxy.demo import Behaviour, Hang, Ok, Outage
from tests.app.mcp_batches import before, before_tools, call, events, post, reasons
from tests.app.watching import assert_nothing_is_held, counted, in_flight, waiting
from tests.kit.raw import connect
from tests.kit.running import running
from tests.kit.scripted import Scripted
from tests.kit.waiting import bounded, until

ONE_NOTE = "{create_note: {buckets: [{rate: 1 request/hour}]}}"
PING = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
ONE_AT_A_TIME = "{create_note: {concurrency: 1}}"


@pytest.mark.parametrize("sse", [False, True])
async def test_what_is_refused_of_a_batch_is_answered_beside_the_rest(sse):
    async with (
        before_tools(ONE_NOTE, Behaviour(latency_s=0.0, mcp_sse=sse)) as proxy,
        connect(proxy.url) as caller,
    ):
        batch = [call(1, "create_note"), NOTE, call(2, "create_note"), PING, call("three")]
        await caller.send(post(batch))
        reply = await caller.reply()
        replies = events(reply.text) if sse else reply.json()
        assert reply.status == 200
        assert reasons(replies) == {1: None, 2: "bucket_empty", "p": None, "three": None}
        assert replies[0]["id"] == 2, "ours come first"
        assert "Do not call tool create_note again" in replies[0]["result"]["content"][0]["text"]
        await assert_nothing_is_held(proxy)


async def test_a_batch_that_is_admitted_whole_goes_on_byte_by_byte():
    async def script(peer):
        heard = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]")
        script.body = heard.body

    async with (
        Scripted(script) as upstream,
        running(before(upstream.url)) as proxy,
        connect(proxy.url) as caller,
    ):
        request = post([call(1), call(2, "create_note")])
        await caller.send(request)
        assert (await caller.reply()).body == b"[]"
        assert script.body == request.partition(b"\r\n\r\n")[2]


async def test_of_a_batch_that_is_admitted_in_part_the_rest_goes_on_in_its_own_bytes():
    async def script(peer):
        script.body = (await peer.request()).body
        await peer.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    tools = "{create_note: {concurrency: 1}, search: {concurrency: 1}}"
    async with (
        Scripted(script) as upstream,
        running(before(upstream.url, tools=tools)) as proxy,
        connect(proxy.url) as caller,
    ):
        batch = [call(1), call(2), NOTE, call(3, "create_note"), PING]
        await caller.send(post(batch))
        reply = await caller.reply()
        assert (reply.status, reasons(reply.json())) == (200, {2: "cap_reached"})
        sent = [batch[0], NOTE, batch[3], PING]
        assert script.body == b"[" + b",".join(json.dumps(each).encode() for each in sent) + b"]"


async def test_a_batch_of_which_nothing_is_admitted_reaches_no_upstream():
    async with before_tools(ONE_NOTE) as proxy, connect(proxy.url) as caller:
        await caller.send(post(call(0, "create_note")))
        await caller.reply()
        await caller.send(post([call(1, "create_note"), call(2, "create_note")]))
        reply = await caller.reply()
        assert reasons(reply.json()) == {1: "bucket_empty", 2: "bucket_empty"}
        assert reply.headers["x-backpressure-reason"] == "bucket_empty"
        assert len(proxy.upstream.ledger.entries) == 1
        await assert_nothing_is_held(proxy)


async def test_each_call_of_a_batch_holds_its_own_permits_until_the_answer_ends():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with (
        before_tools(ONE_AT_A_TIME, behaviour) as proxy,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
    ):
        await first.send(post([call(1, "create_note"), call(2), call(3), call(4, "create_note")]))
        await until(lambda: in_flight(proxy, "upstream:up") == 3)
        assert in_flight(proxy, "tool:mcp/create_note") == 1
        await second.send(post(call(9, "create_note")))
        assert reasons([(await second.reply()).json()]) == {9: "cap_reached"}
        behaviour.mode = Ok()
        assert reasons((await first.reply()).json()) == {1: None, 2: None, 3: None, 4: "cap_reached"}
        await assert_nothing_is_held(proxy)


async def test_a_batch_waits_once_and_only_while_it_holds_nothing():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    route = "queue: {size: 10, max_age: 1h}, "
    async with (
        before_tools(ONE_AT_A_TIME, behaviour, route=route) as proxy,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
    ):
        await first.send(post(call(0, "create_note")))
        await until(lambda: in_flight(proxy, "tool:mcp/create_note") == 1)
        await second.send(post([call(1, "create_note"), call(2, "create_note"), call(3)]))
        await until(lambda: waiting(proxy, "mcp") == 1)
        assert in_flight(proxy, "upstream:up") == 1, "nothing is held while it waits"
        behaviour.mode = Ok()
        assert reasons((await second.reply()).json()) == {1: None, 2: "cap_reached", 3: None}
        await assert_nothing_is_held(proxy)


async def test_a_caller_that_leaves_while_its_batch_waits_leaves_nothing_behind():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    route = "queue: {size: 10, max_age: 1h}, "
    async with before_tools(ONE_AT_A_TIME, behaviour, route=route) as proxy, connect(proxy.url) as first:
        await first.send(post(call(0, "create_note")))
        await until(lambda: in_flight(proxy, "tool:mcp/create_note") == 1)
        async with connect(proxy.url) as second:
            await second.send(post([call(1, "create_note"), call(2)]))
            await until(lambda: waiting(proxy, "mcp") == 1)
            second.leave()
            await until(lambda: waiting(proxy, "mcp") == 0)
        behaviour.mode = Ok()
        await first.reply()
        await assert_nothing_is_held(proxy)


async def test_a_caller_that_leaves_a_running_batch_gives_every_permit_back():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with before_tools(ONE_AT_A_TIME, behaviour) as proxy:
        async with connect(proxy.url) as caller:
            await caller.send(post([call(1, "create_note"), call(2), call(3)]))
            await until(lambda: in_flight(proxy, "upstream:up") == 3)
            caller.leave()
            await until(lambda: in_flight(proxy, "upstream:up") == 0)
        await assert_nothing_is_held(proxy)


@pytest.mark.parametrize("refuse_as", ["result", "error", "http"])
async def test_a_batch_whose_upstream_fails_is_answered_message_by_message(refuse_as):
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_tools(ONE_NOTE, behaviour, route=f"mcp: {{refuse_as: {refuse_as}}}, ") as proxy,
        connect(proxy.url) as caller,
    ):
        await caller.send(post([call(1, "create_note"), call(2, "create_note"), PING, NOTE, call(3)]))
        reply = await caller.reply()
        assert reply.status == 200
        failed = "upstream_failed"
        assert reasons(reply.json()) == {1: failed, 2: "bucket_empty", "p": failed, 3: failed}
        await assert_nothing_is_held(proxy)


async def test_a_stream_that_is_cut_owes_an_answer_to_each_call_that_was_sent():
    async def script(peer):
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"b\r\n: waiting\n\n\r\n"
        )
        peer.reset()

    async with (
        Scripted(script) as upstream,
        running(before(upstream.url, tools=ONE_NOTE)) as proxy,
        connect(proxy.url) as caller,
    ):
        await caller.send(post([call(1, "create_note"), call(2, "create_note"), call(3)]))
        said = events((await caller.reply()).text)
        assert reasons(said) == {2: "bucket_empty", 1: "upstream_failed", 3: "upstream_failed"}
        await assert_nothing_is_held(proxy)


async def test_an_answer_that_ours_cannot_be_added_to_is_none():
    async def script(peer):
        while True:
            await peer.request()
            await peer.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
                b"content-length: 2\r\n\r\n\x1f\x8b"
            )

    async with (
        Scripted(script) as upstream,
        running(before(upstream.url, tools=ONE_NOTE)) as proxy,
        connect(proxy.url) as caller,
    ):
        await caller.send(post([call(1, "create_note"), call(2, "create_note")], accept_encoding="gzip"))
        assert reasons((await caller.reply()).json()) == {1: "upstream_failed", 2: "bucket_empty"}
        assert upstream.requests[0].all(b"accept-encoding") == [b"identity"]
        await caller.send(post(PING))
        assert (await caller.reply()).status == 200, "the connection goes on"


async def test_a_session_that_is_unknown_upstream_is_told_for_the_whole_batch():
    async with before_tools(ONE_NOTE) as proxy, connect(proxy.url) as caller:
        batch = [call(1, "create_note"), call(2, "create_note")]
        await caller.send(post(batch, mcp_session_id="ended"))
        assert (await caller.reply()).status == 404, "a client opens a new one"


async def test_what_was_refused_in_a_batch_and_returns_alone_is_known_by_itself():
    """It has another id, another length and no company. It comes too early: the retry budget pays for it."""
    tools = "{create_note: {buckets: [{rate: 1 request/hour}]}}"
    async with before_tools(tools) as proxy, connect(proxy.url) as caller:
        await caller.send(post([call(1, "create_note"), call(2, "create_note"), call(3)]))
        assert reasons((await caller.reply()).json()) == {1: None, 2: "bucket_empty", 3: None}
        await caller.send(post(call(44_444, "create_note", progressToken=7)))
        assert reasons([(await caller.reply()).json()]) == {44_444: "bucket_empty"}
        lines = [line for line in proxy.lines() if line["event"] == "refused"]
        assert [line["retry"] for line in lines] == [False, True]


async def test_a_batch_that_failed_and_comes_again_is_a_retry_call_by_call():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with before_tools(behaviour=behaviour) as proxy, connect(proxy.url) as caller:
        await caller.send(post([call(1), call(2, "create_note")]))
        await caller.reply()
        behaviour.mode = Ok()
        before = proxy.proxy.state().retry_budgets[0].balance
        await caller.send(post([call(8, "create_note"), call(9)]))
        assert reasons((await caller.reply()).json()) == {8: None, 9: None}
        assert proxy.proxy.state().retry_budgets[0].balance < before - 1.5, "two retries were paid for"


async def test_a_batch_counts_in_every_bucket_and_metric_as_often_as_it_has_calls():
    async with (
        before_tools(route="buckets: [{rate: 3 requests/hour, burst: 3}], ") as proxy,
        connect(proxy.url) as caller,
    ):
        await caller.send(post([call(number) for number in range(5)]))
        found = reasons((await caller.reply()).json())
        assert [found[number] for number in range(5)] == [None] * 3 + ["bucket_empty"] * 2
        sums = await counted(proxy)
        assert (sums["calls_admitted_total"], sums["calls_refused_total"]) == (3.0, 2.0)
        assert sums["answers_total"] == 3.0
        await assert_nothing_is_held(proxy)


async def test_headers_that_name_another_tool_than_the_body_are_refused():
    async with before_tools() as proxy, connect(proxy.url) as caller:
        await caller.send(post(call(1, "create_note"), mcp_method="tools/call", mcp_name="search"))
        reply = await caller.reply()
        assert reply.status == 400
        assert reply.json()["error"]["code"] == -32020
        assert not proxy.upstream.ledger.entries


async def test_a_cancelled_batch_settles_every_lease():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with before_tools(behaviour=behaviour) as proxy, connect(proxy.url) as caller:
        await caller.send(post([call(1), call(2)]))
        await until(lambda: in_flight(proxy, "upstream:up") == 2)
        ledger = proxy.upstream.ledger
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        caller.leave()
        await asyncio.wait_for(ledger.until(lambda: ledger.in_flight == 0), 5)
        await assert_nothing_is_held(proxy)
