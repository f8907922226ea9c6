"""The real OpenAI SDK, as an agent would use it: the base URL is all that changes."""

from __future__ import annotations

import asyncio
import time

import openai
import pytest

from proxy.demo import Behaviour, Hang, Outage
from tests.kit.running import BREAKER, before_demo

MESSAGES = [{"role": "user", "content": "hi"}]


def client(proxy, **options) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.url}/openai/v1", api_key="sk-test", **options)


async def chat(sdk: openai.AsyncOpenAI, **options):
    return await sdk.chat.completions.create(model="demo", messages=MESSAGES, **options)


async def test_a_plain_completion_goes_through():
    async with before_demo() as proxy, client(proxy) as sdk:
        completion = await chat(sdk)
        assert completion.choices[0].message.content
        assert completion.usage.total_tokens > 0
        assert proxy.upstream.ledger.arrivals == 1


async def test_a_streamed_completion_arrives_event_by_event_and_ends_as_a_stream_should():
    async with before_demo(Behaviour(latency_s=0.0, event_gap_s=0.0)) as proxy, client(proxy) as sdk:
        chunks = [chunk async for chunk in await chat(sdk, stream=True)]
        assert len(chunks) > 2
        assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.slow
async def test_its_own_retry_waits_as_told_and_is_admitted_on_its_first_return():
    route = "buckets: [{rate: 1 request/3s, per: caller}]\nqueue: {size: 0}"
    async with before_demo(route=route) as proxy, client(proxy) as sdk:
        began = time.monotonic()
        await chat(sdk)
        await chat(sdk)  # refused once, waits, comes back, is admitted
        waited = time.monotonic() - began
        (refused,) = [line for line in proxy.lines() if line["event"] == "refused"]
        assert proxy.upstream.ledger.arrivals == 2
        assert refused["reason"] == "bucket_empty"
        assert waited >= refused["retry_after_ms"] / 1000
        assert (await proxy.state())["caps"][0]["in_flight"] == 0


@pytest.mark.parametrize(
    ("route", "upstream", "calls", "error", "reason"),
    [
        ("buckets: [{rate: 1 request/hour}]\nqueue: {size: 0}", "", 2, openai.RateLimitError, "bucket_empty"),
        ("quotas: [{allow: 1 request/hour}]\nqueue: {size: 0}", "", 2, openai.RateLimitError, "quota_spent"),
    ],
)
async def test_a_refusal_raises_the_typed_error(route, upstream, calls, error, reason):
    async with before_demo(route=route, upstream=upstream) as proxy, client(proxy, max_retries=0) as sdk:
        for _ in range(calls - 1):
            await chat(sdk)
        with pytest.raises(error) as caught:
            await chat(sdk)
        headers = caught.value.response.headers
        assert headers["x-backpressure-reason"] == reason
        assert 1 <= int(headers["retry-after"]) <= 55
        assert caught.value.code == "rate_limit_exceeded"


async def test_a_full_cap_is_refused_as_a_rate_limit():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with (
        before_demo(behaviour, upstream="concurrency: 1", route="queue: {size: 0}") as proxy,
        client(proxy, max_retries=0, timeout=30) as sdk,
        client(proxy, max_retries=0, timeout=30) as other,
    ):
        first = asyncio.create_task(chat(sdk))
        await proxy.upstream.ledger.until(lambda: proxy.upstream.ledger.in_flight == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            await chat(other)
        assert caught.value.response.headers["x-backpressure-reason"] == "cap_reached"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_an_open_breaker_raises_internal_server_error_with_the_time_to_the_next_probe():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_demo(behaviour, upstream=f"breaker: {BREAKER}") as proxy,
        client(proxy, max_retries=0) as sdk,
    ):
        for _ in range(4):
            with pytest.raises(openai.InternalServerError):
                await chat(sdk)
        seen = proxy.upstream.ledger.arrivals
        with pytest.raises(openai.InternalServerError) as caught:
            await chat(sdk)
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["x-backpressure-reason"] == "breaker_open"
        # The breaker opened less than a second ago and stays open for one; no two callers are told the same.
        assert 0 < int(caught.value.response.headers["retry-after-ms"]) < 1500
        assert proxy.upstream.ledger.arrivals == seen
