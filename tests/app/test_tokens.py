"""Buckets of tokens through the whole proxy: estimated when a call comes, corrected by its answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from proxy.core import costs
from proxy.core.costs import ENOUGH
from proxy.demo import Behaviour, Hang, serve_demo
from tests.app.watching import counted, waiting
from tests.kit.raw import connect, head
from tests.kit.running import Running, running
from tests.kit.scripted import Scripted, answering, saying
from tests.kit.waiting import bounded, until

BURST = 1000
DEFAULT_OUTPUT = int(costs.DEFAULT_OUTPUT)
ASK = {
    "model": "demo",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": DEFAULT_OUTPUT,
}
PATHS = {"openai": "/openai/v1/chat/completions", "anthropic": "/anthropic/v1/messages"}


def yaml(
    url: str, bucket: str = f"rate: 1 token/hour, burst: {BURST}, per: caller", queue: str = "{size: 0}"
) -> str:
    upstreams = [f"  {name}: {{url: '{url}', dialect: {name}, breaker: off}}" for name in PATHS]
    lines = ["upstreams:", *upstreams, "routes:"]
    for name in PATHS:
        lines += [f"  - name: {name}", f"    path: /{name}/", f"    upstream: {name}"]
        lines += [f"    queue: {queue}", f"    buckets: [{{{bucket}}}]"]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def counting(
    behaviour: Behaviour | None = None, **options: str
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """A proxy before the demo upstream, whose routes have a bucket of `BURST` tokens that hardly refills."""
    async with serve_demo(behaviour or Behaviour(latency_s=0.0, event_gap_s=0.0)) as demo:
        async with running(yaml(demo.url, **options)) as proxy, httpx.AsyncClient() as client:
            proxy.upstream = demo.upstream
            yield proxy, client


def talkative(words: int = DEFAULT_OUTPUT) -> Behaviour:
    """An upstream that answers so many words."""
    return Behaviour(latency_s=0.0, event_gap_s=0.0, stream_events=words)


def spent(proxy: Running) -> float:
    """Tokens that the fullest of all buckets has lost."""
    return max((row.burst - row.level for row in proxy.proxy.state().buckets), default=0.0)


def size(ask: object) -> int:
    return len(httpx.Request("POST", "http://proxy", json=ask).content)


async def post(proxy: Running, client: httpx.AsyncClient, dialect: str, **more: object) -> httpx.Response:
    return await client.post(proxy.url + PATHS[dialect], json=ASK | more)


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_has_spent_what_its_answer_tells(dialect: str, stream: bool) -> None:
    async with counting() as (proxy, client):
        more = {"stream": stream} | ({"stream_options": {"include_usage": True}} if stream else {})
        assert (await post(proxy, client, dialect, **more)).status_code == 200
        used = size(ASK | more) // 4 + 8  # as the demo upstream counts: four bytes a token, and eight words
        assert spent(proxy) == pytest.approx(used, abs=0.1)
        sums = await counted(proxy)
        assert sums["tokens_charged_total"] == used
        assert sums["tokens_estimated_total"] == size(ASK | more) / 4 + DEFAULT_OUTPUT


async def test_while_a_call_runs_its_estimate_is_taken_and_an_aborted_one_pays_for_what_it_sent() -> None:
    async with counting(Behaviour(latency_s=0.0, mode=Hang())) as (proxy, client):
        assert proxy.upstream is not None
        ledger = proxy.upstream.ledger
        running_call = asyncio.create_task(post(proxy, client, "openai"))
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        assert spent(proxy) == pytest.approx(size(ASK) / 4 + DEFAULT_OUTPUT, abs=0.1)
        running_call.cancel()
        await asyncio.gather(running_call, return_exceptions=True)
        await until(lambda: proxy.proxy._pipeline._running == 0)
        assert spent(proxy) == pytest.approx(size(ASK) / 4, abs=0.1)


async def test_a_hundred_at_once_are_admitted_as_far_as_their_estimates_fit() -> None:
    async with counting(Behaviour(latency_s=0.0, mode=Hang())) as (proxy, client):
        assert proxy.upstream is not None
        ledger = proxy.upstream.ledger
        fit = BURST // (size(ASK) // 4 + DEFAULT_OUTPUT)
        calls = {asyncio.create_task(post(proxy, client, "openai")) for _ in range(100)}
        while len(calls) > fit:
            done, calls = await bounded(asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED))
            assert {call.result().status_code for call in done} == {429}
        await bounded(ledger.until(lambda: ledger.in_flight == fit))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    ("dialect", "kind"), [("openai", "insufficient_quota"), ("anthropic", "billing_error")]
)
async def test_a_call_that_costs_more_than_the_burst_is_refused_for_good(dialect: str, kind: str) -> None:
    async with counting() as (proxy, _), connect(proxy.url) as raw:
        body = json.dumps(ASK | {"max_tokens": BURST}).encode()
        await raw.send(head("POST", PATHS[dialect], content_length=str(len(body))) + body)
        reply = await raw.reply()
        assert reply.status == 400
        assert reply.headers["x-backpressure-reason"] == "too_dear"
        assert reply.headers["x-backpressure-limit"] == "1 token/hour"
        assert reply.headers["x-should-retry"] == "false"
        assert "retry-after" not in reply.headers
        assert json.loads(reply.body)["error"]["type"] == kind
        assert spent(proxy) == 0.0
        assert proxy.upstream is not None
        assert proxy.upstream.ledger.arrivals == 0


async def test_the_text_alone_may_be_too_dear() -> None:
    async with counting() as (proxy, client):
        reply = await post(proxy, client, "openai", max_tokens=1, user="long " * BURST)
        assert reply.headers["x-backpressure-reason"] == "too_dear"


async def test_what_is_not_certain_keeps_no_call_out_for_good() -> None:
    async with counting() as (proxy, client):
        picture = base64.b64encode(random.Random(1).randbytes(30_000)).decode()
        for text in (picture, "long " * 100_000):  # no text; too long to be read, and who knows what it is
            reply = await post(proxy, client, "openai", max_tokens=1, user=text)
            assert (reply.status_code, reply.headers.get("x-backpressure-reason")) in (
                (200, None),
                (429, "bucket_empty"),  # the first one's debt
            )
        assert proxy.upstream is not None
        assert proxy.upstream.ledger.arrivals == 1


async def test_the_estimate_takes_all_of_a_bucket_that_holds_less() -> None:
    """What is learnt is no bound: that a caller's answers are long keeps none of its calls out for good."""
    bucket = f"rate: 1M tokens/second, burst: {BURST}, per: caller"
    async with counting(talkative(3 * BURST), bucket=bucket, queue="{size: 5, max_age: 10s}") as (
        proxy,
        client,
    ):
        ask = {"model": "demo", "messages": []}
        for _ in range(ENOUGH + 2):
            reply = await client.post(proxy.url + PATHS["openai"], json=ask)
            assert reply.status_code == 200, reply.text
        serving = proxy.proxy._pipeline.serving
        (caller,) = {key[1] for key in serving.costs._callers._young}
        assert serving.costs.output_of(caller, "demo", None) > BURST


async def test_what_costs_no_tokens_passes_while_there_are_none() -> None:
    async with counting(talkative(), bucket="rate: 1 token/hour, burst: 400") as (proxy, client):
        assert (await post(proxy, client, "openai", stream=True)).status_code == 200
        assert (await post(proxy, client, "openai")).status_code == 429
        assert (await client.get(proxy.url + "/openai/v1/models")).status_code == 200
        assert (await client.get(proxy.url + PATHS["openai"])).status_code == 405, "the upstream's own word"


async def test_answers_are_asked_for_without_encoding_where_they_are_read() -> None:
    async with counting() as (proxy, client):
        await post(proxy, client, "openai")
        await client.get(proxy.url + "/openai/v1/models")
        assert proxy.upstream is not None
        read, passed = proxy.upstream.ledger.entries
        assert read.header("accept-encoding") == "identity"
        assert passed.header("accept-encoding") == client.headers["accept-encoding"]


def answer(
    body: bytes, content_type: str = "application/json", status: str = "200 OK", more: str = ""
) -> bytes:
    lines = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{more}content-length: {len(body)}\r\n\r\n"
    return lines.encode() + body


PIECES = b"".join(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % word for word in (b"a", b"b", b"c"))
USAGE = b'{"usage": {"prompt_tokens": 700, "completion_tokens": 900}}'
SENT = size(ASK) / 4
ESTIMATE = SENT + DEFAULT_OUTPUT


@pytest.mark.parametrize(
    ("answers", "used"),
    [
        (answer(USAGE), 1600.0),
        (answer(b"data: " + USAGE + b"\n\n", "text/event-stream"), 1600),
        (answer(USAGE, more="content-encoding: gzip\r\n"), ESTIMATE),
        (answer(b'{"usage": {"prompt_tokens": "some"}}'), ESTIMATE),
        (answer(b"not JSON"), ESTIMATE),
        (answer(b""), SENT),
        (answer(b'{"error": "no"}', status="429 Too Many Requests"), 0),
        (answer(b'{"error": "no"}', status="500 Oh"), 0),
        (answer(b"data: " + USAGE + b"\n\n", "text/event-stream")[:-1], 1600),  # cut
        (answer(PIECES, "text/event-stream")[:-1], SENT + 3),
        (answer(b": nothing yet\n\n", "text/event-stream")[:-1], ESTIMATE),
        (answer(USAGE)[:-1], ESTIMATE),  # it was written whole, and cut on its way
        (answer(USAGE)[: -len(USAGE)], SENT),
        (b"", 0),
    ],
)
async def test_what_does_not_tell_is_counted_by_what_came_of_it(answers: bytes, used: float) -> None:
    bucket = "rate: 1 token/hour, burst: 2000, per: caller"
    async with Scripted(saying(answers)) as upstream, running(yaml(upstream.url, bucket)) as proxy:
        async with httpx.AsyncClient() as client:
            with contextlib.suppress(httpx.HTTPError):  # of what was cut, or is no gzip
                await client.post(proxy.url + PATHS["openai"], json=ASK)
        await until(lambda: proxy.proxy._pipeline._running == 0)
        assert spent(proxy) == pytest.approx(used, abs=0.1)


async def test_what_one_call_used_beyond_its_estimate_the_next_one_waits_for() -> None:
    bucket = "rate: 1k tokens/second, burst: 1000, per: caller"
    async with Scripted(answering(answer(USAGE))) as upstream, running(yaml(upstream.url, bucket)) as proxy:
        async with httpx.AsyncClient() as client:
            assert (await client.post(proxy.url + PATHS["openai"], json=ASK)).status_code == 200
            reply = await client.post(proxy.url + PATHS["openai"], json=ASK)
        assert reply.status_code == 429
        # 600 of debt and the estimate, which has learnt, at 1000 a second, less the time that has passed.
        assert 1 <= int(reply.headers["retry-after-ms"]) <= 600 + size(ASK) + DEFAULT_OUTPUT


async def test_when_a_dear_call_leaves_the_queue_who_stood_behind_it_goes_at_once() -> None:
    bucket = f"rate: 1 token/second, burst: {BURST}, per: caller"
    async with (
        counting(talkative(), bucket=bucket, queue="{size: 5, max_age: 10m}") as (proxy, client),
        connect(proxy.url) as dear,
        connect(proxy.url) as cheap,
    ):
        assert (await post(proxy, client, "openai", stream=True)).status_code == 200
        assert (await post(proxy, client, "openai", stream=True)).status_code == 200
        for waiter, allowed in ((dear, DEFAULT_OUTPUT), (cheap, 1)):
            before = waiting(proxy)
            body = json.dumps(ASK | {"max_tokens": allowed}).encode()
            await waiter.send(head("POST", PATHS["openai"], content_length=str(len(body))) + body)
            await until(lambda before=before: waiting(proxy) == before + 1)
        dear.leave()
        assert (await cheap.reply()).status == 200, "minutes before the dear one could have gone"
