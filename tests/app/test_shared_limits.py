"""Two proxies and one Redis, all of them real: what each limit lets through of all that comes to both."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from proxy.demo import Behaviour, Ok, Outage, serve_demo
from tests.kit.raw import CHAT
from tests.kit.redis import RedisServer, redis_server
from tests.kit.running import Running, running
from tests.kit.sharing import in_use_for_long, leaping, until_it_is
from tests.kit.waiting import until

PATH = "/openai/v1/chat/completions"

CONFIG = """
store: {store}
upstreams:
  api: {{url: {upstream}, dialect: openai, concurrency: {slots}{upstream_too}}}
routes:
  - name: chat
    path: /openai/
    upstream: api
    {route}
"""


@contextlib.asynccontextmanager
async def two_before(
    redis: RedisServer,
    route: str,
    behaviour: Behaviour,
    slots: int | str = "adaptive",
    upstream_too: str = "",
) -> AsyncIterator[tuple[Running, Running]]:
    """Two proxies in touch with the store, in front of one upstream."""
    await in_use_for_long(redis)
    async with contextlib.AsyncExitStack() as stack:
        demo = await stack.enter_async_context(serve_demo(behaviour))
        yaml = CONFIG.format(
            store=redis.url, upstream=demo.url, slots=slots, route=route, upstream_too=upstream_too
        )
        one = await stack.enter_async_context(running(yaml))
        other = await stack.enter_async_context(running(yaml))
        one.upstream = other.upstream = demo.upstream
        for proxy in (one, other):
            await until_it_is(proxy, "shared")
        yield one, other


async def told(client: httpx.AsyncClient, proxy: Running, body: bytes = CHAT, **more: str) -> str:
    """What a call was answered: its status, or the reason why not."""
    headers = {"authorization": "Bearer ann", **more}
    answer = await client.post(proxy.url + PATH, content=body, headers=headers)
    return answer.headers.get("x-backpressure-reason", str(answer.status_code))


def body(number: int) -> bytes:
    """A call that is no repeat of another."""
    return CHAT.replace(b"hi", b"hi %d" % number)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("buckets: [{rate: 5 requests/hour, burst: 5, per: caller}]", "bucket_empty"),
        ("quotas: [{allow: 5 requests/day, per: caller}]", "quota_spent"),
    ],
)
async def test_a_limit_holds_for_both_together_and_no_queue_is_needed_to_ask_the_store(limit, reason):
    async with redis_server() as redis:
        route = f"{limit}\n    queue: {{size: 0}}"
        async with two_before(redis, route, Behaviour(latency_s=0.0)) as both, httpx.AsyncClient() as client:
            answers = [await told(client, both[number % 2], body(number)) for number in range(12)]
            assert Counter(answers) == {"200": 5, reason: 7}
            assert both[0].upstream.ledger.arrivals == 5


async def test_calls_that_come_at_once_to_both_get_as_many_as_there_are():
    async with redis_server() as redis:
        limit = "buckets: [{rate: 20 requests/hour, burst: 20, per: route}]\n    queue: {size: 0}"
        quick = Behaviour(latency_s=0.0, slots=100)
        async with two_before(redis, limit, quick, slots=100) as both, httpx.AsyncClient() as client:
            calls = [told(client, both[number % 2], body(number)) for number in range(60)]
            assert Counter(await asyncio.gather(*calls)) == {"200": 20, "bucket_empty": 40}


async def test_a_cap_holds_for_both_together_and_who_waits_gets_what_the_other_lets_go():
    behaviour = Behaviour(latency_s=0.05, slots=100)
    async with redis_server() as redis:
        async with two_before(redis, "queue: {size: 100}", behaviour, slots=2) as both:
            async with httpx.AsyncClient(timeout=30.0) as client:
                calls = [told(client, both[number % 2], body(number)) for number in range(16)]
                assert Counter(await asyncio.gather(*calls)) == {"200": 16}
            assert both[0].upstream.ledger.peak_in_flight == 2


@pytest.mark.slow
async def test_when_the_store_is_gone_each_route_does_as_it_says():
    routes = """buckets: [{rate: 1000 requests/second, per: route}]
    on_store_failure: refuse
  - name: open
    path: /open/
    upstream: api
    buckets: [{rate: 1000 requests/second, per: route}]
    on_store_failure: open"""
    async with redis_server() as redis:
        async with two_before(redis, routes, Behaviour(latency_s=0.0)) as (one, _):
            clock = leaping(one)
            async with httpx.AsyncClient() as client:
                assert await told(client, one, body(1)) == "200"
                await redis.kill()
                await until_it_is(one, "lost")
                clock.leapt_s += 3.2
                await until_it_is(one, "alone")
                assert await told(client, one, body(2)) == "200", "its share, for so long as is safe"
                clock.leapt_s += 60.0
                await until_it_is(one, "given_up")
                answer = await client.post(one.url + PATH, content=body(3))
                assert answer.status_code == 503
                assert answer.headers["x-backpressure-reason"] == "store_down"
                assert answer.headers["x-backpressure-scope"] == "store"
                assert 1 <= int(answer.headers["retry-after"]) <= 5
                opened = await client.post(one.url + PATH.replace("openai", "open", 1), content=body(4))
                assert opened.status_code == 200


async def test_no_call_hangs_when_the_store_dies_while_it_is_asked():
    async with redis_server() as redis:
        limit = "buckets: [{rate: 100 requests/second, per: caller}]\n    queue: {size: 10, max_age: 1s}"
        async with two_before(redis, limit, Behaviour(latency_s=0.0)) as (one, _):
            async with httpx.AsyncClient(timeout=20.0) as client:
                redis.pause()
                calls = [asyncio.create_task(told(client, one, body(number))) for number in range(8)]
                answers = Counter(await asyncio.gather(*calls))
                redis.resume()
            # Until every lease has ended nothing can be given, and that is longer than they would wait.
            assert answers == {"store_down": 8}
            assert one.proxy._admission.gate.room.size == 0


NO_RETRIES = ", retry_budget: {ratio: 0, floor: 0 per minute}, breaker: off"

COUNTED = {"x-stainless-retry-count": "1"}
"""An SDK's own word that this is a retry."""


async def until_it_has_heard(proxy: Running, calls: int = 1) -> None:
    await until(lambda: len(proxy.proxy._repeats) >= calls)


async def test_a_repeat_is_known_at_another_replica_than_the_one_that_failed():
    behaviour = Behaviour(latency_s=0.0, mode=Outage(answer="500"))
    route = "queue: {size: 0}"
    async with redis_server() as redis:
        async with two_before(redis, route, behaviour, upstream_too=NO_RETRIES) as (one, other):
            async with httpx.AsyncClient() as client:
                assert await told(client, one) == "500"
                behaviour.mode = Ok()
                await until_it_has_heard(other)
                assert await told(client, other) == "retry_budget_spent"
                assert await told(client, other, body(1)) == "200"


async def test_who_was_told_to_come_back_may_do_so_at_another_replica():
    limits, quick = (
        "buckets: [{rate: 1 request/30s, per: caller}]\n    queue: {size: 0}",
        Behaviour(latency_s=0.0),
    )
    async with redis_server() as redis:
        async with two_before(redis, limits, quick, upstream_too=NO_RETRIES) as (one, other):
            async with httpx.AsyncClient() as client:
                assert await told(client, one) == "200"
                assert await told(client, one, body(1)) == "bucket_empty"
                await until_it_has_heard(other)
                assert await told(client, other, body(1), **COUNTED) == "retry_budget_spent", "too early"
                await until_it_has_heard(one)
                leaping(other).leapt_s += 56.0
                assert await told(client, other, body(1), **COUNTED) == "bucket_empty", (
                    "asked for, and no retry"
                )
                assert await told(client, other, body(2), **COUNTED) == "retry_budget_spent", "not asked for"
