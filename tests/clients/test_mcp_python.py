"""The real MCP client through the proxy: tools go through, a refusal is a result that the model reads."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from mcp import Client

from proxy.demo import Behaviour, Hang, Ok, Outage, serve_demo
from tests.app.watching import assert_nothing_is_held, in_flight
from tests.kit.raw import connect, head
from tests.kit.running import BREAKER, before_demo, running
from tests.kit.scripted import Scripted
from tests.kit.waiting import bounded

ERAS = pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
FULL = "queue: {size: 0}\nconcurrency: 1"
JSON_RPC = {"content_type": "application/json", "accept": "application/json, text/event-stream"}


@ERAS
async def test_tools_are_listed_and_called(era):
    async with before_demo() as proxy, Client(f"{proxy.url}/mcp", mode=era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "create_note"]
        found = await client.call_tool("search", {"query": "room"})
        assert not found.is_error
        assert found.content[0].text == "1 note found for “room”."
        (work,) = [entry for entry in proxy.upstream.ledger.entries if entry.is_work]
        assert work.tool == "search"


async def test_answers_framed_as_an_event_stream_arrive():
    behaviour = Behaviour(latency_s=0.0, mcp_sse=True)
    async with before_demo(behaviour) as proxy, Client(f"{proxy.url}/mcp") as client:
        found = await client.call_tool("search", {"query": "room"})
        assert found.content[0].text == "1 note found for “room”."


@ERAS
async def test_a_refused_tool_call_is_readable_text_and_the_session_lives_on(era):
    tools = "{create_note: {buckets: [{rate: 1 request/hour}]}}"
    async with before_tools(tools) as proxy, Client(f"{proxy.url}/mcp", mode=era) as client:
        note = {"title": "Today", "text": "All well"}
        assert not (await client.call_tool("create_note", note)).is_error
        refused = await client.call_tool("create_note", note)
        assert refused.is_error
        text = refused.content[0].text
        assert "Do not call tool create_note again for" in text, text
        assert "Do other work first" in text
        assert refused.meta["backpressure/reason"] == "bucket_empty"
        assert not (await client.call_tool("search", {"query": "room"})).is_error, "another tool has room"
        assert len((await client.list_tools()).tools) == 2
        (line,) = [line for line in proxy.lines() if line["event"] == "refused"]
        assert line["tool"] == "create_note"


async def test_a_tools_cap_holds_at_the_upstream_and_other_tools_do_not_feel_it():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with (
        before_tools("{create_note: {concurrency: 1}}", behaviour) as proxy,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
        connect(proxy.url) as third,
    ):
        ledger = proxy.upstream.ledger
        await first.send(tool_call("create_note"))
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        await second.send(tool_call("create_note"))
        refused = (await second.reply()).json()["result"]
        assert refused["isError"]
        assert refused["_meta"]["backpressure/reason"] == "cap_reached"
        await third.send(tool_call("search"))
        await bounded(ledger.until(lambda: ledger.in_flight == 2))
        behaviour.mode = Ok()
        for answered in (first, third):
            assert (await answered.reply()).json()["result"]["resultType"] == "complete"
        assert ledger.peak_by_tool == {"create_note": 1, "search": 1}
        await assert_nothing_is_held(proxy)


@ERAS
async def test_a_session_opens_and_lists_its_tools_while_the_route_is_full(era):
    async with before_demo(route=FULL) as proxy, connect(proxy.url) as busy:
        await fill(proxy, busy)
        async with Client(f"{proxy.url}/mcp", mode=era) as client:
            assert len((await client.list_tools()).tools) == 2
            refused = await client.call_tool("search", {"query": "room"})
            assert refused.is_error
            assert refused.meta["backpressure/reason"] == "cap_reached"
        if era == "legacy":
            ended = [entry for entry in proxy.upstream.ledger.entries if entry.method == "DELETE"]
            assert [entry.status for entry in ended] == [204], "the end of a session is not refused either"


async def test_the_event_stream_of_a_session_holds_no_permit():
    """A client keeps it open as long as its session lasts: a cap of eight would serve eight idle agents."""
    opened = asyncio.Event()

    async def stream(peer):
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n")
        opened.set()
        await peer.left()

    async with Scripted(stream) as upstream:
        yaml = (
            f"upstreams: {{up: {{url: '{upstream.url}', dialect: mcp, concurrency: 1}}}}\n"
            "routes: [{name: mcp, path: /mcp, upstream: up, queue: {size: 0}}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as listening:
            await listening.send(head("GET", "/mcp", accept="text/event-stream"))
            await bounded(opened.wait())
            assert in_flight(proxy, "upstream:up") == 0


async def test_while_draining_a_session_is_opened_elsewhere_and_a_tool_call_is_told_so_in_words():
    async with before_demo() as proxy, connect(proxy.url) as caller, connect(proxy.url) as opener:
        proxy.proxy.drain()
        await caller.send(tool_call("search"))
        refused = await caller.reply()
        assert refused.status == 200
        assert refused.json()["result"]["_meta"]["backpressure/reason"] == "draining"
        reply = await opener.post("/mcp", rpc("initialize"), **JSON_RPC)
        assert reply.status == 503
        assert 1 <= int(reply.headers["retry-after"]) <= 5
        assert reply.headers["connection"] == "close"


@ERAS
async def test_an_open_breaker_is_told_to_the_model_and_the_session_survives_the_outage(era):
    behaviour = Behaviour(latency_s=0.0)
    upstream = f"breaker: {BREAKER.replace('open_for: 1s', 'open_for: 1h')}"
    async with (
        before_demo(behaviour, upstream=upstream) as proxy,
        Client(f"{proxy.url}/mcp", mode=era) as client,
    ):
        behaviour.mode = Outage()
        answers = [await client.call_tool("search", {"query": "room"}) for _ in range(5)]
        reasons = [answer.meta["backpressure/reason"] for answer in answers]
        assert reasons == ["upstream_failed"] * 4 + ["breaker_open"]
        behaviour.mode = Ok()
        assert len((await client.list_tools()).tools) == 2


@asynccontextmanager
async def before_tools(tools, behaviour=None):
    """The demo upstream behind one MCP route with these settings for its tools."""
    async with serve_demo(behaviour or Behaviour(latency_s=0.0)) as demo:
        yaml = (
            f"upstreams: {{mcp: {{url: '{demo.url}/mcp', dialect: mcp}}}}\n"
            f"routes: [{{name: mcp, path: /mcp, upstream: mcp, queue: {{size: 0}}, tools: {tools}}}]\n"
        )
        async with running(yaml) as proxy:
            proxy.upstream = demo.upstream
            yield proxy


def rpc(method, **params):
    return msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def tool_call(tool):
    body = rpc("tools/call", name=tool, arguments={"query": "room", "title": "Today", "text": "All well"})
    return head("POST", "/mcp", content_length=str(len(body)), **JSON_RPC) + body


async def fill(proxy, raw):
    """The one permit of the route is taken by a call that gets no answer."""
    behaviour, ledger = proxy.upstream.behaviour, proxy.upstream.ledger
    behaviour.slots = 1
    behaviour.latency_s = 3600.0
    await raw.send(tool_call("search"))
    await bounded(ledger.until(lambda: ledger.in_flight == 1))
