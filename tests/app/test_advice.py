"""Advice through the whole proxy: whoever follows it, on real sockets, is answered."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from proxy.demo import Behaviour, Hang, serve_demo
from proxy.demo.server import DemoUpstream
from tests.app.test_tokens import ASK, BURST, PATHS, counting, post, yaml
from tests.dialects.test_advice import NAME, SCANNED, parsed
from tests.kit.running import Running, running
from tests.kit.scripted import Scripted, answering
from tests.kit.waiting import bounded

SLOW = "rate: 1 token/hour, burst: 1000, per: caller"
FAST = "rate: 600 tokens/minute, burst: 1000, per: caller"
EVERYBODY = "rate: 600 tokens/minute, burst: 1000, per: upstream"


def advice(reply: httpx.Response) -> dict[str, Any]:
    return parsed(reply.headers[NAME]) if NAME in reply.headers else {}


@asynccontextmanager
async def telling_nothing(bucket: str) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """A proxy whose upstream's answers tell no usage, so that every call has spent its estimate."""
    silent = answering(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
    async with Scripted(silent) as upstream, running(yaml(upstream.url, bucket)) as proxy:
        async with httpx.AsyncClient() as client:
            yield proxy, client


@pytest.mark.parametrize("bucket", [SLOW, FAST, EVERYBODY])
@pytest.mark.parametrize("dialect", PATHS)
async def test_with_the_output_advised_a_call_passes_at_once(dialect: str, bucket: str) -> None:
    async with telling_nothing(bucket) as (proxy, client):
        assert (await post(proxy, client, dialect, max_tokens=400)).status_code == 200
        refused = await post(proxy, client, dialect, max_tokens=900)
        assert (refused.status_code, refused.headers["x-backpressure-reason"]) == (429, "bucket_empty")
        told = advice(refused)
        assert 500 < told["smaller_output"] < told["most_tokens"] < 700
        body = refused.json()["error"]
        assert body["backpressure"]["advice"] == told
        assert f"at most {told['smaller_output']} tokens of output." in body["message"]
        followed = await post(proxy, client, dialect, max_tokens=told["smaller_output"])
        assert followed.status_code == 200


async def test_a_place_is_kept_for_the_same_call_unless_a_smaller_one_comes_for_it() -> None:
    async with telling_nothing(FAST) as (proxy, client):
        assert (await post(proxy, client, "openai", max_tokens=400)).status_code == 200
        told = advice(await post(proxy, client, "openai", max_tokens=900))
        other = await post(proxy, client, "openai", max_tokens=told["most_tokens"], user="a" * 200)
        assert other.status_code == 429, "that is another call, and what is left is kept for the first"
        followed = await post(proxy, client, "openai", max_tokens=told["smaller_output"])
        assert followed.status_code == 200


@pytest.mark.parametrize("dialect", PATHS)
async def test_of_what_can_never_pass_the_header_says_what_can(dialect: str) -> None:
    async with counting() as (proxy, client):
        refused = await post(proxy, client, dialect, max_tokens=5000)
        assert (refused.status_code, refused.headers["x-backpressure-reason"]) == (400, "too_dear")
        told = advice(refused)
        assert told["most_tokens"] == BURST
        assert SCANNED.findall(refused.text) == []
        assert refused.json()["error"]["backpressure"]["advice"] == dict.fromkeys(told)
        assert "x-backpressure-advice says how much" in refused.json()["error"]["message"]
        followed = await post(proxy, client, dialect, max_tokens=told["smaller_output"])
        assert followed.status_code == 200


async def test_a_prompt_too_long_for_any_output_is_told_how_long_it_may_be() -> None:
    async with counting() as (proxy, client):
        refused = await post(proxy, client, "openai", messages=[{"role": "user", "content": "word " * 1000}])
        assert refused.headers["x-backpressure-reason"] == "too_dear"
        assert advice(refused) == {"most_tokens": BURST}


async def test_embeddings_have_no_output_to_ask_less_of() -> None:
    async with counting() as (proxy, client):
        path = "/openai/v1/embeddings"
        refused = await client.post(proxy.url + path, json={"model": "demo", "input": "word " * 1000})
        assert refused.headers["x-backpressure-reason"] == "too_dear"
        assert advice(refused) == {"most_tokens": BURST}


@asynccontextmanager
async def two_ways(
    dialect: str, first: str = "", second: str = "", advise: str = "{routes: [second]}", more: str = ""
) -> AsyncIterator[tuple[Running, httpx.AsyncClient, DemoUpstream, DemoUpstream]]:
    """Routes /first and /second, each with room for one call at a time and no queue."""
    async with AsyncExitStack() as stack:
        demos = [
            await stack.enter_async_context(serve_demo(Behaviour(latency_s=0.0))) for _ in ("first", "second")
        ]
        base = {"mcp": "/mcp", "rest": "/tools"}.get(dialect, "")
        tool = "/{tool}" if dialect == "rest" else ""
        text = "upstreams:\n" + "".join(
            f"  {name}: {{url: '{demo.url}{base}', dialect: {dialect}, concurrency: 1, breaker: off}}\n"
            for name, demo in zip(("first", "second"), demos, strict=True)
        )
        text += (
            "routes:\n"
            f"  - {{name: first, path: '/first{tool}', upstream: first, queue: {{size: 0}}, "
            f"advise: {advise}{first}}}\n"
            f"  - {{name: second, path: '/second{tool}', upstream: second, queue: {{size: 0}}{second}}}\n"
        )
        proxy = await stack.enter_async_context(running(text + more))
        client = await stack.enter_async_context(httpx.AsyncClient())
        yield proxy, client, demos[0].upstream, demos[1].upstream


@asynccontextmanager
async def busy(demo: DemoUpstream, call: Callable[[], Awaitable[httpx.Response]]) -> AsyncIterator[None]:
    """While a call hangs in this upstream."""
    demo.behaviour.mode = Hang()
    holder = asyncio.ensure_future(call())
    await bounded(demo.ledger.until(lambda: demo.ledger.in_flight == 1))
    try:
        yield
    finally:
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)


TOOL_CALL = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "tools/call",
    "params": {"name": "search", "arguments": {"query": "x"}},
}
CALLS: dict[str, tuple[str, dict[str, object]]] = {
    "openai": ("/v1/chat/completions", ASK),
    "anthropic": ("/v1/messages", ASK),
    "rest": ("/search", {}),
    "mcp": ("", TOOL_CALL),
}
ACCEPT = {"accept": "application/json, text/event-stream"}


def calling(
    proxy: Running, client: httpx.AsyncClient, dialect: str
) -> Callable[[str], Awaitable[httpx.Response]]:
    rest, body = CALLS[dialect]
    return lambda path: client.post(proxy.url + path + rest, json=body, headers=ACCEPT)


def said(dialect: str, reply: httpx.Response) -> str:
    body = reply.json()
    if dialect == "mcp":
        assert body["result"]["isError"] is True
        return str(body["result"]["content"][0]["text"])
    return str(body["detail"] if dialect == "rest" else body["error"]["message"])


@pytest.mark.parametrize("dialect", CALLS)
async def test_the_route_that_is_named_has_room(dialect: str) -> None:
    async with two_ways(dialect) as (proxy, client, first, second):
        call = calling(proxy, client, dialect)
        async with busy(first, lambda: call("/first")):
            refused = await call("/first")
            told = advice(refused)
            path = told.pop("other_route")
            assert path == ("/second/{tool}" if dialect == "rest" else "/second")
            assert told == {"fewer_parallel": 1}
            text = said(dialect, refused)
            assert text.endswith(f" Make one call at a time. There is room now under {path}.")
            followed = await call(path.replace("/{tool}", ""))
            assert followed.status_code == 200
            assert b"isError" not in followed.content or b'"isError":false' in followed.content
            assert second.ledger.arrivals == 1


@pytest.mark.parametrize("dialect", ["openai", "mcp"])
async def test_a_route_without_room_is_not_named(dialect: str) -> None:
    async with two_ways(dialect) as (proxy, client, first, second):
        call = calling(proxy, client, dialect)
        async with busy(first, lambda: call("/first")), busy(second, lambda: call("/second")):
            assert advice(await call("/first")) == {"fewer_parallel": 1}


@pytest.mark.parametrize(
    "second",
    [
        ", buckets: [{rate: 1 request/hour, per: caller}]",
        ", quotas: [{allow: 1 request/hour}]",
        ", buckets: [{rate: 1 token/hour, burst: 1, per: caller}]",
    ],
)
async def test_a_route_whose_allowance_is_spent_is_not_named(second: str) -> None:
    async with two_ways("openai", second=second) as (proxy, client, first, _):
        call = calling(proxy, client, "openai")
        await call("/second")
        async with busy(first, lambda: call("/first")):
            assert advice(await call("/first")) == {"fewer_parallel": 1}


async def test_a_caller_that_has_all_it_may_have_is_sent_nowhere() -> None:
    more = "callers: {default: {concurrency: 1}}\n"
    async with two_ways("openai", more=more) as (proxy, client, first, _):
        call = calling(proxy, client, "openai")
        async with busy(first, lambda: call("/first")):
            assert advice(await call("/first")) == {"fewer_parallel": 1}


async def test_a_cheaper_model_is_named_where_the_operator_names_one() -> None:
    async with two_ways("openai", advise="{model: gpt-4o-mini}") as (proxy, client, first, _):
        call = calling(proxy, client, "openai")
        async with busy(first, lambda: call("/first")):
            refused = await call("/first")
        assert advice(refused) == {"fewer_parallel": 1, "cheaper_model": "gpt-4o-mini"}
        assert said("openai", refused).endswith("Where it will do, ask for gpt-4o-mini.")


async def test_what_is_too_dear_here_is_told_where_it_is_not() -> None:
    small = ", buckets: [{rate: 1000 tokens/hour, per: caller}]"
    large = ", buckets: [{rate: 9000 tokens/hour, per: caller}]"
    async with two_ways("openai", first=small, second=large) as (proxy, client, _, _):
        path = CALLS["openai"][0]
        refused = await client.post(f"{proxy.url}/first{path}", json=ASK | {"max_tokens": 5000})
        assert (refused.status_code, advice(refused)["other_route"]) == (400, "/second")
        assert re.search(r"[0-9]|/second", refused.text) is None
        followed = await client.post(f"{proxy.url}/second{path}", json=ASK | {"max_tokens": 5000})
        assert followed.status_code == 200


async def test_while_this_proxy_drains_nobody_is_sent_to_another_of_its_routes() -> None:
    async with two_ways("openai") as (proxy, client, _, _):
        proxy.proxy.drain()
        refused = await calling(proxy, client, "openai")("/first")
        assert (refused.status_code, advice(refused)) == (503, {})
        assert json.loads(refused.content)["error"]["backpressure"]["reason"] == "draining"
