"""The upstream's own word, on real sockets: paced before its first 429, and a time of one's own after it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from proxy.demo import Behaviour
from proxy.demo.provider import Limits
from tests.kit.running import Running, before_demo, running
from tests.kit.scripted import Scripted, answering

CHAT = {"model": "demo", "messages": []}
MESSAGES = {"model": "demo", "messages": [], "max_tokens": 8}
ASKED = {"openai": ("/openai/v1/chat/completions", CHAT), "anthropic": ("/anthropic/v1/messages", MESSAGES)}
ROOM = "queue: {size: 100, max_age: 30s}"


async def calls(proxy: Running, form: str, count: int) -> list[httpx.Response]:
    """So many at once; the next when one is answered."""
    path, body = ASKED[form]
    left = list(range(count))
    answers: list[httpx.Response] = []

    async def agent(client: httpx.AsyncClient) -> None:
        while left:
            left.pop()
            answers.append(await client.post(proxy.url + path, json=body))

    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        await asyncio.gather(*(agent(client) for _ in range(4)))
    return answers


@pytest.mark.parametrize("form", ["openai", "anthropic"])
async def test_a_provider_is_paced_before_it_refuses_one(form: str) -> None:
    limits = Limits(requests=30, per_s=3.0, form=form)  # of 45 at once half would be refused
    behaviour = Behaviour(latency_s=0.0, stream_events=2, limits=limits)
    async with before_demo(behaviour, route=ROOM, upstream="retry_budget: off") as proxy:
        answers = await calls(proxy, form, 45)
    assert [answer.status_code for answer in answers] == [200] * 45
    assert proxy.upstream.ledger.ended["refused"] == 0


async def test_without_it_the_provider_refuses() -> None:
    behaviour = Behaviour(latency_s=0.0, stream_events=2, limits=Limits(requests=30, per_s=3.0))
    async with before_demo(behaviour, route=ROOM, upstream="retry_budget: off\npace: off") as proxy:
        await calls(proxy, "openai", 45)
    assert proxy.upstream.ledger.ended["refused"] > 0


def plain(status: bytes, body: bytes, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


YAML = """
upstreams:
  there: {{url: "{url}", dialect: {dialect}, concurrency: 8, breaker: off, retry_budget: off, {more}}}
routes:
  - {{name: r, path: "/r/{path}", upstream: there, queue: {{size: 0, max_age: 1s}}}}
"""


async def test_two_whom_the_upstream_refuses_never_hear_the_same_time_and_the_rest_is_held() -> None:
    refusal = plain(b"429 Too Many Requests", b"{}", b"retry-after: 20", b"x-kept: yes")
    async with Scripted(answering(refusal, refusal, refusal)) as upstream:
        yaml = YAML.format(url=upstream.url, dialect="rest", more="pace: told", path="")
        async with running(yaml) as proxy, httpx.AsyncClient(trust_env=False) as client:
            told = await asyncio.gather(*(client.get(f"{proxy.url}/r/{at}") for at in range(3)))
            held = await client.get(f"{proxy.url}/r/later")
        assert len(upstream.requests) == 3
    waits = [int(answer.headers["retry-after-ms"]) for answer in (*told, held)]
    assert len(set(waits)) == 4
    assert all(18_000 < wait < 30_000 for wait in waits)
    assert [int(answer.headers["retry-after"]) for answer in (*told, held)] == [
        -(-wait // 1000) for wait in waits
    ]
    assert [answer.headers.get("x-kept") for answer in told] == ["yes"] * 3
    assert [answer.headers.get_list("retry-after") for answer in told] == [
        [answer.headers["retry-after"]] for answer in told
    ]
    assert held.headers["x-backpressure-reason"] == "bucket_empty"
    assert held.headers["x-backpressure-scope"] == "upstream:there"


async def test_a_limit_in_the_text_of_a_200_holds_its_tool_and_no_other() -> None:
    limited = plain(b"200 OK", b'{"isError": true, "text": "Rate limit exceeded, retry in 30s."}')
    fine = plain(b"200 OK", b'{"text": "done"}')
    more = r"limit_patterns: ['rate limit exceeded, retry in (?P<seconds>[0-9]+)s']"
    async with Scripted(answering(limited, fine, fine)) as upstream:
        yaml = YAML.format(url=upstream.url, dialect="rest", more=more, path="{tool}")
        async with running(yaml) as proxy, httpx.AsyncClient(trust_env=False) as client:
            first = await client.post(f"{proxy.url}/r/search", content=b"{}")
            again = await client.post(f"{proxy.url}/r/search", content=b"{}")
            other = await client.post(f"{proxy.url}/r/read", content=b"{}")
            metrics = await proxy.metrics()
    assert (first.status_code, again.status_code, other.status_code) == (200, 429, 200)
    assert first.json()["isError"]  # as it came
    assert again.headers["x-backpressure-scope"] == "tool:r/search"
    assert 28 <= int(again.headers["retry-after"]) <= 31
    assert 'outcome="overloaded"' in metrics


async def test_a_key_of_ones_own_has_an_allowance_of_its_own() -> None:
    fine = plain(
        b"200 OK", b"{}", b"x-ratelimit-remaining: 9", b"x-ratelimit-limit: 9", b"x-ratelimit-reset: 40"
    )
    refusal = plain(b"429 Too Many Requests", b"{}", b"retry-after: 20")
    async with Scripted(answering(fine, refusal, fine)) as upstream:
        yaml = YAML.format(url=upstream.url, dialect="rest", more="pace: told", path="")
        async with running(yaml) as proxy, httpx.AsyncClient(trust_env=False) as client:
            ask = [
                (await client.get(f"{proxy.url}/r/x", headers={"authorization": f"Bearer {key}"})).status_code
                for key in ("a", "a", "b", "a")
            ]
        assert len(upstream.requests) == 3
    assert ask == [200, 429, 200, 429]
