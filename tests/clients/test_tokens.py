"""The real SDKs at a bucket of tokens: what one call used, the next one waits for as told, and goes."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from proxy.demo import Behaviour, serve_demo
from tests.kit.running import Running, running

USED = 60
"""Tokens of an answer of the demo upstream here: as many words as it is allowed. So few that no machine takes
so long to read them that the bucket is full again."""

ASK: dict[str, Any] = {"model": "demo", "max_tokens": USED, "messages": [{"role": "user", "content": "hi"}]}


def yaml(url: str, dialect: str, rate: str) -> str:
    return f"""
upstreams: {{api: {{url: "{url}", dialect: {dialect}}}}}
routes:
  - name: api
    path: /api/
    upstream: api
    buckets: [{{rate: {rate}, burst: 100, per: caller}}]
    queue: {{size: 0}}
"""


def talkative() -> Behaviour:
    return Behaviour(latency_s=0.0, event_gap_s=0.0, stream_events=USED)


def openai_at(proxy: Running, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.url}/api/v1", api_key="sk-test", **options)


def anthropic_at(proxy: Running, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=f"{proxy.url}/api", api_key="sk-test", **options)


def refusals(proxy: Running) -> list[str]:
    return [line["reason"] for line in proxy.lines() if line["event"] == "refused"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_openai_sdk_waits_as_told_and_is_admitted_on_its_first_return(stream: bool) -> None:
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with (
        serve_demo(talkative()) as demo,
        running(yaml(demo.url, "openai", "100 tokens/second")) as proxy,
        openai_at(proxy) as sdk,
    ):
        for _ in range(2):
            answer = await sdk.chat.completions.create(**ASK, **more)
            if stream:
                last = [chunk async for chunk in answer][-1]
                assert last.usage.completion_tokens == USED
        assert refusals(proxy) == ["bucket_empty"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_anthropic_sdk_waits_as_told_and_is_admitted_on_its_first_return(stream: bool) -> None:
    async with (
        serve_demo(talkative()) as demo,
        running(yaml(demo.url, "anthropic", "100 tokens/second")) as proxy,
        anthropic_at(proxy) as sdk,
    ):
        for _ in range(2):
            if stream:
                async with sdk.messages.stream(**ASK) as events:
                    message = await events.get_final_message()
            else:
                message = await sdk.messages.create(**ASK)
            assert message.usage.output_tokens == USED
        assert refusals(proxy) == ["bucket_empty"]


async def test_a_refusal_names_the_bucket_and_what_it_counts() -> None:
    async with (
        serve_demo(talkative()) as demo,
        running(yaml(demo.url, "openai", "100 tokens/hour")) as proxy,
        openai_at(proxy, max_retries=0) as sdk,
    ):
        await sdk.chat.completions.create(**ASK)
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.chat.completions.create(**ASK)
        assert caught.value.response.headers["x-backpressure-limit"] == "100 tokens/hour"
        assert caught.value.response.headers["x-backpressure-scope"].startswith("caller:")
