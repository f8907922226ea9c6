"""Gemini on a whole proxy: the model in the path, its refusals, and the end of a cut stream."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from proxy.demo import Behaviour, Hang, Outage, serve_demo
from tests.app.watching import assert_nothing_is_held
from tests.kit.running import before_demo, running
from tests.kit.scripted import Scripted
from tests.kit.waiting import bounded

PATH = "/v1beta/models/demo:generateContent"
HELLO = {"contents": [{"parts": [{"text": "hi"}]}]}
STREAM = "/v1beta/models/demo:streamGenerateContent?alt=sse"
EVENT = b'data: {"candidates":[{"content":{"parts":[{"text":"half"}]}}]}'


async def test_an_answer_a_stream_and_an_array_go_through():
    async with before_demo() as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
        plain = await client.post("/gemini" + PATH, json=HELLO)
        events = await client.post("/gemini/v1beta/models/demo:streamGenerateContent?alt=sse", json=HELLO)
        array = await client.post("/gemini/v1beta/models/demo:streamGenerateContent", json=HELLO)
        assert plain.json()["usageMetadata"]["candidatesTokenCount"] == 8
        assert events.text.count("data: ") == len(array.json()) == 9
        assert [entry.dialect for entry in proxy.upstream.ledger.entries] == ["gemini"] * 3
        await assert_nothing_is_held(proxy)


async def test_each_of_googles_keys_is_a_caller_of_its_own():
    route = "buckets: [{rate: 1 request/hour, per: caller}]\nqueue: {size: 0}"
    async with before_demo(route=route) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
        statuses = []
        for key in ("one", "two", "one"):
            answer = await client.post("/gemini" + PATH, json=HELLO, headers={"x-goog-api-key": key})
            statuses.append(answer.status_code)
        assert statuses == [200, 200, 429]
        error = answer.json()["error"]
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
        delay = next(each["retryDelay"] for each in error["details"] if "retryDelay" in each)
        assert float(delay.removesuffix("s")) * 1000 == float(answer.headers["retry-after-ms"])


@asynccontextmanager
async def two(dialect: str = "gemini"):
    """Two upstreams; the second is asked for the model `small` where the first, of one slot, is full."""
    async with (
        serve_demo(Behaviour(latency_s=0.0)) as first,
        serve_demo(Behaviour(latency_s=0.0)) as second,
        running(
            "peek: 4KiB\n"
            "upstreams:\n"
            f"  first: {{url: '{first.url}', dialect: {dialect}, concurrency: 1, breaker: off}}\n"
            f"  second: {{url: '{second.url}', dialect: {dialect}, breaker: off}}\n"
            "routes:\n"
            "  - {name: api, path: /api, upstream: first, queue: {size: 0},\n"
            "     fallback: [{upstream: second, model: small}]}\n"
        ) as proxy,
        httpx.AsyncClient(base_url=proxy.url + "/api") as client,
    ):
        yield proxy, first.upstream, second.upstream, client


async def test_a_fallback_to_another_model_changes_the_path_alone():
    async with two() as (proxy, first, second, client):
        first.behaviour.mode = Outage()
        answer = await client.post(PATH + "?alt=json", json=HELLO)
        assert answer.json()["modelVersion"] == "small"
        (entry,) = second.ledger.entries
        assert (entry.path, entry.query) == (PATH.replace("demo", "small"), "alt=json")
        assert entry.body_bytes == first.ledger.entries[0].body_bytes
        await assert_nothing_is_held(proxy)


async def test_a_body_too_long_to_be_rewritten_need_not_be():
    async with two() as (_, first, second, client):
        first.behaviour.mode = Hang()
        held = asyncio.create_task(client.post(PATH, json=HELLO))
        await bounded(first.ledger.until(lambda: first.ledger.in_flight == 1))
        long = HELLO | {"x": "y" * 100_000}
        assert (await client.post(PATH, json=long)).json()["modelVersion"] == "small"
        assert second.ledger.entries[0].body_bytes > 100_000
        count = {"generateContentRequest": long | {"model": "models/demo"}}
        refused = await client.post(PATH.replace("generateContent", "countTokens"), json=count)
        assert refused.status_code == 429, "its body repeats the model, and is too long to be read"
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)


async def test_where_the_body_repeats_the_model_both_are_changed():
    async with two() as (_, first, second, client):
        first.behaviour.mode = Outage()
        path = PATH.replace("generateContent", "batchEmbedContents")
        body = {"requests": [{"model": "models/demo", "content": {}}]}
        assert len((await client.post(path, json=body)).json()["embeddings"]) == 1
        (entry,) = second.ledger.entries
        assert entry.model == "small"
        assert entry.body_bytes == first.ledger.entries[0].body_bytes + len("small") - len("demo")


async def test_each_model_of_a_path_has_a_count_of_its_own_and_no_body_is_read():
    async with (
        serve_demo(Behaviour(latency_s=0.0)) as demo,
        running(
            "peek: 1KiB\n"
            f"upstreams: {{demo: {{url: '{demo.url}', dialect: gemini}}}}\n"
            "routes:\n"
            "  - {name: api, path: /api, upstream: demo, queue: {size: 0},\n"
            "     buckets: [{rate: 1 request/hour, burst: 1, per: model}]}\n"
        ) as proxy,
        httpx.AsyncClient(base_url=proxy.url + "/api") as client,
    ):
        long = HELLO | {"x": "y" * 50_000}
        asked = [PATH.replace("demo", model) for model in ("a", "b", "a")]
        assert [(await client.post(path, json=long)).status_code for path in asked] == [200, 200, 429]
        refused = await client.post(asked[0].replace("generate", "streamGenerate"), json=long)
        assert refused.headers["x-backpressure-scope"] == "model:a"


def cutting(sent: bytes):
    """Some of an event stream without a length, then a reset."""

    async def script(peer):
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await peer.send(head + b"%x\r\n%b\r\n" % (len(sent), sent))
        peer.reset()

    return script


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\r"])
async def test_a_stream_cut_between_two_events_ends_with_an_error_event(end):
    async with Scripted(cutting(EVENT + end)) as upstream, cut_proxy(upstream.url) as client:
        answer = await client.post(STREAM, json=HELLO)
        assert answer.content.startswith(EVENT + end + b'\n\ndata: {"error":{"code":502,')


@pytest.mark.parametrize("sent", [EVENT, EVENT[:-9], EVENT + b"\r\n", EVENT + b"\n\r"])
async def test_one_cut_within_an_event_is_reset(sent):
    async with Scripted(cutting(sent)) as upstream, cut_proxy(upstream.url) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(STREAM, json=HELLO)


@asynccontextmanager
async def cut_proxy(url: str):
    yaml = (
        f"upstreams: {{up: {{url: '{url}', dialect: gemini, breaker: off}}}}\n"
        "routes: [{name: api, path: /api, upstream: up}]\n"
    )
    async with running(yaml) as proxy, httpx.AsyncClient(base_url=proxy.url + "/api") as client:
        yield client
