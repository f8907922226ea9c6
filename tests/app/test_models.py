"""Allowances per model: one count for each that a body names, also where a fallback names another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from proxy.demo import Behaviour, Outage, serve_demo
from tests.kit.running import Running, running

PATH = "/api/v1/chat/completions"
ONE_EACH = "[{rate: 1 request/hour, burst: 1, per: model}]"


@asynccontextmanager
async def counting(
    *, buckets: str = ONE_EACH, more: str = "", breaker: str = "off"
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    async with serve_demo(Behaviour(latency_s=0.0)) as demo:
        yaml = (
            "peek: 4KiB\n"
            f"upstreams: {{demo: {{url: '{demo.url}', dialect: openai, breaker: {breaker}}}}}\n"
            "routes:\n"
            "  - name: api\n    path: /api\n    upstream: demo\n    queue: {size: 0}\n"
            f"    buckets: {buckets}\n{more}"
        )
        async with running(yaml) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
            proxy.upstream = demo.upstream
            yield proxy, client


async def ask(client: httpx.AsyncClient, model: str, **more: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return await client.post(PATH, json=body)


async def test_each_model_has_a_count_of_its_own():
    async with counting() as (_, client):
        assert [(await ask(client, model)).status_code for model in ("a", "b", "a", "b", "c")] == [
            200, 200, 429, 429, 200,
        ]  # fmt: skip
        refused = await ask(client, "a", max_tokens=5)
        assert refused.headers["x-backpressure-scope"] == "model:a"
        assert refused.headers["x-backpressure-reason"] == "bucket_empty"


async def test_a_body_without_a_model_or_without_json_has_a_count_too():
    async with counting() as (proxy, client):
        json_type = {"content-type": "application/json"}
        first = await client.post(PATH, content=b"{", headers=json_type)
        assert first.headers.get("x-backpressure-reason") is None, "the upstream's to complain of"
        second = await client.post(PATH, content=b'{"messages": []}', headers=json_type)
        assert second.headers["x-backpressure-scope"] == "model:"
        assert proxy.upstream.ledger.arrivals == 1


async def test_what_is_no_json_is_not_read_however_long():
    async with counting() as (_, client):
        sent = await client.post(PATH, content=b"x" * 9000, headers={"content-type": "audio/wav"})
        assert sent.status_code != 413


async def test_a_body_too_long_to_be_read_is_refused_in_words():
    async with counting() as (proxy, client):
        refused = await ask(client, "a", user="x" * 5000)
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "body_too_large"
        assert proxy.upstream.ledger.arrivals == 0


async def test_a_fallback_to_another_model_spends_that_ones_allowance():
    async with counting(more="    fallback: [{model: small}]\n") as (proxy, client):
        assert [(await ask(client, "big")).status_code for _ in range(3)] == [200, 200, 429]
        assert [entry.model for entry in proxy.upstream.ledger.entries] == ["big", "small"]
        assert (await ask(client, "small")).status_code == 429, "it was spent by the fallback"


async def test_after_a_failure_the_first_model_has_paid_and_the_second_pays():
    async with counting(more="    fallback: [{model: small}]\n") as (proxy, client):
        proxy.upstream.behaviour.mode = Outage()
        assert (await ask(client, "big")).status_code >= 500
        assert proxy.upstream.ledger.arrivals == 2
        proxy.upstream.behaviour.mode = Behaviour().mode
        assert (await ask(client, "small")).status_code == 429


async def test_a_quota_per_model():
    async with counting(buckets="[]\n    quotas: [{allow: 2 requests/day, per: model}]") as (_, client):
        codes = [(await ask(client, model)).status_code for model in ("a", "a", "a", "b")]
        assert codes == [200, 200, 429, 200]
