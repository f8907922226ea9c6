"""Holes that a review found, each closed by a test that goes through it."""

from __future__ import annotations

import httpx

from proxy.demo import Behaviour, Outage, serve_demo
from tests.kit.raw import connect
from tests.kit.running import before_demo, running

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
CALL = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "search", "arguments": {}}}


async def test_a_tool_call_without_an_id_does_not_slip_past_the_tools_caps():
    async with before_demo() as proxy, httpx.AsyncClient() as http:
        for body in (CALL, [LIST, CALL]):
            answer = await http.post(f"{proxy.url}/mcp", json=body)
            assert answer.status_code == 400, answer.text
        assert all(entry.tool != "search" for entry in proxy.upstream.ledger.entries)


async def test_only_the_calls_of_a_session_are_exempt_on_an_mcp_route():
    route = "quotas: [{allow: 1 request/hour}]\nqueue: {size: 0}"
    async with before_demo(route=route) as proxy, httpx.AsyncClient() as http:
        answers = [(await http.put(f"{proxy.url}/mcp", content=b"{}")).headers for _ in range(2)]
        assert answers[1].get("x-backpressure-reason") == "quota_spent"


async def test_another_spelling_of_a_tool_meets_the_same_bucket():
    async with serve_demo(Behaviour(latency_s=0.0)) as demo:
        yaml = (
            f"upstreams: {{up: {{url: '{demo.url}/tools', dialect: rest}}}}\n"
            "routes: [{name: t, path: '/tools/{tool}', upstream: up, queue: {size: 0}, tools:"
            " {web: {buckets: [{rate: 1 request/hour}]}}}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            assert (await raw.get("/tools/web")).status == 200
            for spelling in ("/tools/w%65b", "/tools/%77eb/x", "/tools/web"):
                assert (await raw.get(spelling)).status == 429


async def test_dots_do_not_carry_the_injected_credential_out_of_the_base_path():
    async with serve_demo(Behaviour(latency_s=0.0)) as demo:
        yaml = (
            f"upstreams: {{up: {{url: '{demo.url}/tools', dialect: rest, credentials: {{x-api-key: k}}}}}}\n"
            "routes: [{name: t, path: /p/, upstream: up}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            for path in ("/p/../../v1/models", "/p/%2e%2e/v1/models", "/p/a/..%2f..%2fv1/models"):
                answer = await raw.get(path)
                assert (answer.status, "unsendable_request" in answer.text) == (400, True)
            assert (await raw.get("/p/a/../b")).status == 200
        assert demo.upstream.ledger.arrivals == 1


async def test_a_failed_get_that_is_repeated_is_paid_for_by_the_retry_budget():
    behaviour = Behaviour(latency_s=0.0, mode=Outage(answer="500"))
    upstream = "retry_budget: {ratio: 0, floor: 1 per minute}\nbreaker: off"
    async with before_demo(behaviour, upstream=upstream) as proxy, httpx.AsyncClient() as http:
        url = f"{proxy.url}/tools/search"
        reasons = [
            (await http.get(url, params={"q": "a"})).headers.get("x-backpressure-reason") for _ in "1234"
        ]
        assert reasons == [None, None, "retry_budget_spent", "retry_budget_spent"]
        other = await http.get(url, params={"q": "b"})
        assert other.status_code == 500, "another query is another call"


async def test_a_fallback_at_another_provider_does_not_see_the_callers_key():
    async with serve_demo(Behaviour(latency_s=0.0)) as first, serve_demo(Behaviour(latency_s=0.0)) as other:
        yaml = (
            "upstreams:\n"
            f"  one: {{url: '{first.url}', dialect: openai, breaker: off}}\n"
            f"  two: {{url: '{other.url}', dialect: openai}}\n"
            "routes: [{name: chat, path: /, upstream: one, fallback: [{upstream: two}]}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            first.upstream.behaviour.mode = Outage()
            assert (await raw.post("/v1/chat/completions", authorization="Bearer sk-mine")).status == 200
        assert first.upstream.ledger.entries[0].header("authorization") == "Bearer sk-mine"
        assert other.upstream.ledger.entries[0].header("authorization") is None


async def test_the_key_that_names_a_caller_to_us_is_not_shown_to_the_provider():
    async with serve_demo(Behaviour(latency_s=0.0)) as demo:
        yaml = (
            "callers: {known: [{name: nightly, key: night-key, max_priority: background}]}\n"
            f"upstreams: {{up: {{url: '{demo.url}', dialect: openai, credentials: {{x-api-key: ours}}}}}}\n"
            "routes: [{name: chat, path: /, upstream: up}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            for headers in (
                {"x_caller_id": "night-key"},
                {"x_caller_id": "somebody else", "authorization": "Bearer night-key"},
            ):
                body = b'{"model":"demo","messages":[{"role":"user","content":"hi"}]}'
                await raw.post("/v1/chat/completions", body, x_priority="critical", **headers)
            metrics = await proxy.metrics()
        seen = [entry.headers for entry in demo.upstream.ledger.entries]
        assert "night-key" not in str(seen)
        assert 'priority="background",route="chat",upstream="up"} 2.0' in metrics
