"""Every refusal that can be reached, on a whole proxy, as the real SDKs raise it: typed, with its headers."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack

import anthropic
import openai
import pytest

from proxy.core.verdict import Reason
from proxy.demo import Behaviour, Hang, Ok, Outage, Refuse
from tests.clients.refusing import ASK, KEY, NO_BREAKER, SCENES, crowded, refusing, sent_with
from tests.kit.running import before_demo

FINAL = {Reason.RETRY_BUDGET_SPENT}
SILENT_ON_RETRYING = {Reason.BREAKER_OPEN, Reason.DRAINING}
STATUSES = {
    Reason.BREAKER_OPEN: 503,
    Reason.DRAINING: 503,
    Reason.UPSTREAM_FAILED: 502,
    Reason.UPSTREAM_TIMEOUT: 504,
}
CODES = {
    Reason.BREAKER_OPEN: "upstream_unavailable",
    Reason.DRAINING: "upstream_unavailable",
    Reason.UPSTREAM_FAILED: "upstream_failed",
    Reason.UPSTREAM_TIMEOUT: "upstream_timeout",
    Reason.RETRY_BUDGET_SPENT: "retry_budget_exhausted",
}
TYPES = {
    Reason.BREAKER_OPEN: "api_error",
    Reason.DRAINING: "api_error",
    Reason.UPSTREAM_FAILED: "api_error",
    Reason.UPSTREAM_TIMEOUT: "timeout_error",
    Reason.RETRY_BUDGET_SPENT: "billing_error",
}
REASONS = pytest.mark.parametrize("reason", sorted(SCENES))
SDKS = pytest.mark.parametrize("sdk", ["openai", "anthropic"])


def client(sdk, proxy, **options):
    if sdk == "openai":
        return openai.AsyncOpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY, **options)
    return anthropic.AsyncAnthropic(base_url=f"{proxy.url}/anthropic", api_key=KEY, **options)


async def ask(asker, headers=None, **options):
    if isinstance(asker, openai.AsyncOpenAI):
        return await asker.chat.completions.create(**ASK, extra_headers=headers, **options)
    return await asker.messages.create(**ASK, extra_headers=headers, **options)


def typed(sdk, status):
    errors = openai if sdk == "openai" else anthropic
    return errors.RateLimitError if status == 429 else errors.InternalServerError


def assert_headers_say(reason, headers):
    assert headers["x-backpressure-reason"] == reason
    assert headers["x-backpressure-scope"]
    assert 1 <= int(headers["retry-after"]) <= 55
    assert int(headers["retry-after"]) == math.ceil(int(headers["retry-after-ms"]) / 1000)
    if reason in SILENT_ON_RETRYING:
        assert "x-should-retry" not in headers
    else:
        assert headers["x-should-retry"] == ("false" if reason in FINAL else "true")


@SDKS
@REASONS
async def test_every_refusal_raises_the_sdks_own_error_and_tells_when_to_come_back(sdk, reason):
    async with refusing(reason, sdk) as proxy, client(sdk, proxy, max_retries=0) as asker:
        status = STATUSES.get(reason, 429)
        with pytest.raises(typed(sdk, status)) as caught:
            await ask(asker, sent_with(reason))
        assert caught.value.response.status_code == status
        assert_headers_say(reason, caught.value.response.headers)
        if sdk == "openai":
            assert caught.value.code == CODES.get(reason, "rate_limit_exceeded")
            assert caught.value.body["backpressure"]["reason"] == reason
        else:
            assert caught.value.body["error"]["type"] == TYPES.get(reason, "rate_limit_error")


@SDKS
@pytest.mark.parametrize("reason", [Reason.WAITED_TOO_LONG, Reason.BREAKER_OPEN, Reason.UPSTREAM_TIMEOUT])
async def test_a_streamed_call_is_refused_before_its_stream_begins_by_the_same_error(sdk, reason):
    async with refusing(reason, sdk) as proxy, client(sdk, proxy, max_retries=0) as asker:
        status = STATUSES.get(reason, 429)
        with pytest.raises(typed(sdk, status)) as caught:
            await ask(asker, sent_with(reason), stream=True)
        assert_headers_say(reason, caught.value.response.headers)


@SDKS
async def test_who_is_displaced_gets_a_rate_limit_error_and_who_displaced_it_is_served(sdk):
    route = "queue: {size: 1}\nshed: {normal: never, background: never}"
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(
            before_demo(behaviour, upstream="concurrency: 1", route=route)
        )
        crowd = await stack.enter_async_context(crowded(proxy, sdk))
        asker = await stack.enter_async_context(client(sdk, proxy, max_retries=0))
        await crowd.hang()
        background = await crowd.wait(ask(asker, {"x-priority": "background"}))
        urgent = crowd.begin(ask(asker, {"x-priority": "critical"}))
        with pytest.raises(typed(sdk, 429)) as caught:
            await background
        assert_headers_say(Reason.DISPLACED, caught.value.response.headers)
        behaviour.mode = Ok()
        assert (await urgent).model == "demo"


@SDKS
async def test_a_failure_tells_no_time_and_no_retry_once_the_retry_budget_has_no_room(sdk):
    upstream = f"{NO_BREAKER}\nretry_budget: {{ratio: 0, floor: 0 per minute}}"
    behaviour = Behaviour(latency_s=0.0, mode=Outage())
    async with (
        before_demo(behaviour, upstream=upstream) as proxy,
        client(sdk, proxy, max_retries=2) as asker,
    ):
        with pytest.raises(typed(sdk, 502)) as caught:
            await ask(asker)
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert "retry-after" not in caught.value.response.headers
        assert proxy.upstream.ledger.arrivals == 1, "the SDK did as it was told"


@SDKS
async def test_where_it_is_not_heeded_an_upstreams_refusal_arrives_as_it_was_and_opens_no_breaker(sdk):
    behaviour = Behaviour(latency_s=0.0, mode=Refuse(retry_after_s=7.0))
    upstream = "pace: off\nbreaker: {minimum_calls: 2, failure_ratio: 0.5}"
    async with (
        before_demo(behaviour, upstream=upstream) as proxy,
        client(sdk, proxy, max_retries=0) as asker,
    ):
        for _ in range(5):
            with pytest.raises(typed(sdk, 429)) as caught:
                await ask(asker)
            headers = caught.value.response.headers
            assert headers["retry-after"] == "7"
            assert "x-backpressure-reason" not in headers, "not our word"
        assert proxy.upstream.ledger.arrivals == 5
        assert {each.phase for each in proxy.proxy.state().breakers} == {"closed"}
