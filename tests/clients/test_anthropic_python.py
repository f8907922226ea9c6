"""The real Anthropic SDK against the proxy."""

from __future__ import annotations

import anthropic
import pytest

from proxy.demo import Behaviour, Outage
from tests.kit.running import BREAKER, before_demo

ASK = {"model": "demo", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}


def client(proxy, **options) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=f"{proxy.url}/anthropic", api_key="sk-test", **options)


async def test_a_plain_message_goes_through():
    async with before_demo() as proxy, client(proxy) as sdk:
        message = await sdk.messages.create(**ASK)
        assert message.content[0].text
        assert message.usage.output_tokens > 0


async def test_a_streamed_message_arrives_whole():
    async with before_demo(Behaviour(latency_s=0.0, event_gap_s=0.0)) as proxy, client(proxy) as sdk:
        async with sdk.messages.stream(**ASK) as stream:
            message = await stream.get_final_message()
        assert message.stop_reason == "end_turn"


async def test_an_empty_bucket_raises_its_rate_limit_error_with_a_time_to_come_back():
    route = "buckets: [{rate: 1 request/hour, per: caller}]\nqueue: {size: 0}"
    async with before_demo(route=route) as proxy, client(proxy, max_retries=0) as sdk:
        await sdk.messages.create(**ASK)
        with pytest.raises(anthropic.RateLimitError) as caught:
            await sdk.messages.create(**ASK)
        headers = caught.value.response.headers
        assert headers["x-backpressure-reason"] == "bucket_empty"
        assert headers["x-should-retry"] == "true"
        assert 1 <= int(headers["retry-after"]) <= 55


async def test_an_open_breaker_raises_its_internal_server_error():
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_demo(behaviour, upstream=f"breaker: {BREAKER}") as proxy,
        client(proxy, max_retries=0) as sdk,
    ):
        for _ in range(4):
            with pytest.raises(anthropic.InternalServerError):
                await sdk.messages.create(**ASK)
        with pytest.raises(anthropic.InternalServerError) as caught:
            await sdk.messages.create(**ASK)
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["x-backpressure-reason"] == "breaker_open"


async def test_the_callers_bearer_key_and_its_x_api_key_are_one_caller():
    route = "buckets: [{rate: 1 request/hour, per: caller}]\nqueue: {size: 0}"
    async with before_demo(route=route) as proxy, client(proxy, max_retries=0) as sdk:
        await sdk.messages.create(**ASK)
        older = anthropic.AsyncAnthropic(
            base_url=f"{proxy.url}/anthropic",
            api_key="unused",
            default_headers={"x-api-key": "sk-test", "authorization": anthropic.Omit()},
            max_retries=0,
        )
        async with older:
            with pytest.raises(anthropic.RateLimitError):
                await older.messages.create(**ASK)
