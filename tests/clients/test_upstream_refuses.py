"""Whom the upstream itself refuses: each SDK is told a time of its own, waits it out, and is let in."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest

from proxy.demo import Behaviour
from proxy.demo.provider import Limits
from tests.kit.running import before_demo

AT_ONCE, ALLOWED = 7, 4


def openai_agent(url, hooks):
    client = openai.DefaultAsyncHttpxClient(event_hooks=hooks)
    sdk = openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=1, http_client=client)
    return sdk, lambda asked: sdk.chat.completions.create(model="demo", messages=asked)


def anthropic_agent(url, hooks):
    client = anthropic.DefaultAsyncHttpxClient(event_hooks=hooks)
    sdk = anthropic.AsyncAnthropic(
        base_url=f"{url}/anthropic", api_key="k", max_retries=1, http_client=client
    )
    return sdk, lambda asked: sdk.messages.create(model="demo", messages=asked, max_tokens=8)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "agent"), [("openai", openai_agent), ("anthropic", anthropic_agent)])
async def test_each_is_let_in_when_it_returns_as_told(form, agent):
    limits = Limits(requests=ALLOWED, per_s=1.0, form=form)
    behaviour = Behaviour(latency_s=0.1, stream_events=2, limits=limits)
    told = []

    async def note(response):
        if response.status_code == 429:
            told.append(response.headers)

    async with before_demo(
        behaviour, route="queue: {size: 0}", upstream="concurrency: 20\nbreaker: off"
    ) as proxy:
        sdk, ask = agent(proxy.url, {"response": [note]})
        async with sdk:  # with one retry: whoever is refused twice raises
            await asyncio.gather(*(ask([{"role": "user", "content": str(n)}]) for n in range(AT_ONCE)))
        by_upstream = proxy.upstream.ledger.ended["refused"]
    assert by_upstream == len([one for one in told if "x-backpressure-reason" not in one])
    assert told  # most went before the upstream's first word came
    waits = [int(one["retry-after-ms"]) for one in told]
    assert len(set(waits)) == len(waits)
    assert max(waits) < 15_000  # of an upstream of four a minute it would be a minute
