"""One tool hangs, or is broken: what that is to the other tools of its server, on real sockets."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from mcp import Client

from proxy.demo import Behaviour, Hang, Ok, Outage, serve_demo
from tests.app.mcp_batches import before_tools, call, post, reason
from tests.app.watching import assert_nothing_is_held, in_flight, phase, waiting
from tests.kit.raw import connect, head
from tests.kit.running import running
from tests.kit.waiting import bounded, until

SLOW_AND_QUEUED = "{create_note: {concurrency: 2, queue: {size: 3, max_age: 1h}}}"
OWN_BREAKER = "{create_note: {breaker: {minimum_calls: 5, open_for: 1h}}}"
ERAS = pytest.mark.parametrize("era", ["legacy", "2026-07-28"])


async def asks(proxy, tool):
    """A call on a connection of its own: why it was refused, or None."""
    async with connect(proxy.url) as caller:
        await caller.send(post(call(1, tool)))
        return reason((await caller.reply()).json())


async def test_a_tool_that_hangs_keeps_nobody_from_the_others():
    """All its permits and places are taken; the route has one place to wait, and it stays free."""
    behaviour = Behaviour(latency_s=0.0, modes={"create_note": Hang()})
    async with (
        before_tools(SLOW_AND_QUEUED, behaviour, route="queue: {size: 1, max_age: 1h}, ") as proxy,
        AsyncExitStack() as open_,
    ):
        callers = [await open_.enter_async_context(connect(proxy.url)) for _ in range(5)]
        for number, caller in enumerate(callers):
            await caller.send(post(call(number, "create_note"), x_priority="critical"))
        await until(lambda: waiting(proxy, "mcp") == 3)
        assert in_flight(proxy, "tool:mcp/create_note") == 2
        for _ in range(20):
            assert await asks(proxy, "search") is None
        async with connect(proxy.url) as caller:
            await caller.send(post(call(6, "create_note"), x_priority="critical"))
            refused = (await caller.reply()).json()["result"]["_meta"]
            assert refused["backpressure/reason"] == "queue_full"
            assert refused["backpressure/scope"] == "tool:mcp/create_note"
        (row,) = proxy.proxy.state().tools
        assert (row.label, row.depth) == ("create_note", 3)
        assert 'tool_queue_depth{route="mcp",tool="create_note"} 3.0' in await proxy.metrics()
        sums = [
            line for line in (await proxy.metrics()).splitlines() if "age_at_dispatch_seconds_sum" in line
        ]
        assert all(line.endswith(" 0.0") for line in sums), "of those admitted nobody has waited"
        behaviour.modes = {}
        for caller in callers:
            assert reason((await caller.reply()).json()) is None
        await assert_nothing_is_held(proxy)


async def test_a_slow_tool_without_a_queue_of_its_own_fills_that_of_its_route():
    """What the setting is for: without it the others are shed, for the queue is full."""
    behaviour = Behaviour(latency_s=0.0, modes={"create_note": Hang()})
    route = "queue: {size: 1, max_age: 1h}, "
    async with (
        before_tools("{create_note: {concurrency: 1}}", behaviour, route=route) as proxy,
        connect(proxy.url) as first,
        connect(proxy.url) as second,
    ):
        await first.send(post(call(1, "create_note")))
        await until(lambda: in_flight(proxy, "tool:mcp/create_note") == 1)
        await second.send(post(call(2, "create_note")))
        await until(lambda: waiting(proxy, "mcp") == 1)
        assert await asks(proxy, "search") == "shed"


@pytest.mark.parametrize("answer", ["close", "reset", "500"])
async def test_the_failures_of_one_tool_open_its_own_breaker_and_the_others_go_on(answer):
    behaviour = Behaviour(latency_s=0.0, modes={"create_note": Outage(answer=answer)})
    async with before_tools(OWN_BREAKER, behaviour) as proxy:
        found = [await asks(proxy, "create_note") for _ in range(6)]
        assert found[-1] == "breaker_open"
        assert phase(proxy, "up") == "closed"
        assert await asks(proxy, "search") is None
        (row,) = proxy.proxy.state().tools
        assert (row.breaker.phase, row.down) == ("open", 1)
        metrics = await proxy.metrics()
        assert 'tool_breaker_phase{phase="open",route="mcp",tool="create_note"} 1.0' in metrics
        (moved,) = [line for line in proxy.lines() if line["event"] == "breaker_moved"]
        assert (moved["scope"], moved["new"]) == ("tool:mcp/create_note", "open")
        await assert_nothing_is_held(proxy)


async def test_a_tool_that_answers_with_an_error_of_its_own_is_not_down():
    """`isError` is how a tool says that its caller asked for the wrong thing."""
    async with before_tools(OWN_BREAKER) as proxy, connect(proxy.url) as caller:
        wrong = call(1, "create_note")
        wrong["params"]["arguments"] = {}
        for _ in range(10):
            await caller.send(post(wrong))
            assert (await caller.reply()).json()["result"]["isError"]
        assert proxy.proxy.state().tools[0].breaker.phase == "closed"


async def test_an_upstream_that_is_gone_is_the_upstreams_failure_whatever_the_tool():
    async with serve_demo(Behaviour(latency_s=0.0)) as demo:
        url = demo.url
    yaml = (
        f"upstreams: {{up: {{url: '{url}/mcp', dialect: mcp, breaker: {{minimum_calls: 5}}}}}}\n"
        f"routes: [{{name: mcp, path: /mcp, upstream: up, queue: {{size: 0}}, tools: {OWN_BREAKER}}}]\n"
    )
    async with running(yaml) as proxy:
        found = [await asks(proxy, "create_note") for _ in range(6)]
        assert found == ["upstream_failed"] * 5 + ["breaker_open"]
        assert phase(proxy, "up") == "open"
        assert proxy.proxy.state().tools[0].breaker.phase == "closed"


async def test_under_any_tool_each_rest_tool_has_a_breaker_of_its_own():
    behaviour = Behaviour(latency_s=0.0, modes={"broken": Outage(answer="500")})
    async with serve_demo(behaviour) as demo:
        yaml = (
            f"upstreams: {{up: {{url: '{demo.url}/tools', dialect: rest}}}}\n"
            "routes: [{name: tools, path: '/tools/{tool}', upstream: up,"
            " tools: {'*': {breaker: {minimum_calls: 5, open_for: 1h}}}}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as caller:

            async def status(tool):
                await caller.send(head("GET", f"/tools/{tool}"))
                reply = await caller.reply()
                return reply.status, reply.headers.get("x-backpressure-scope")

            found = [await status("broken") for _ in range(6)]
            assert found == [(500, None)] * 5 + [(503, "tool:tools/broken")]
            assert await status("working") == (200, None)


async def test_a_reload_takes_a_tools_breaker_away_and_its_calls_go_again():
    behaviour = Behaviour(latency_s=0.0, modes={"create_note": Outage(answer="500")})
    async with before_tools(OWN_BREAKER, behaviour) as proxy:
        for _ in range(6):
            await asks(proxy, "create_note")
        behaviour.modes = {}
        yaml = (
            f"upstreams: {{up: {{url: '{proxy.extra['url']}/mcp', dialect: mcp}}}}\n"
            "routes: [{name: mcp, path: /mcp, upstream: up, queue: {size: 0}}]\n"
        )
        proxy.reload(yaml)
        assert await asks(proxy, "create_note") is None
        assert proxy.proxy.state().tools == ()


@ERAS
async def test_the_real_client_reads_that_one_tool_is_down_and_calls_the_other(era):
    behaviour = Behaviour(latency_s=0.0, modes={"create_note": Outage()})
    async with (
        before_tools(OWN_BREAKER, behaviour) as proxy,
        Client(f"{proxy.url}/mcp", mode=era) as client,
    ):
        note = {"title": "Today", "text": "All well"}
        answers = [await bounded(client.call_tool("create_note", note)) for _ in range(6)]
        assert answers[-1].meta["backpressure/reason"] == "breaker_open"
        assert answers[-1].meta["backpressure/scope"] == "tool:mcp/create_note"
        assert answers[-1].is_error
        assert not (await bounded(client.call_tool("search", {"query": "room"}))).is_error
        behaviour.modes = {"create_note": Ok()}
