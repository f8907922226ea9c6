"""An answer that is cut after its first byte: what its caller is told, and the instant repeat of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.core.repeats import HOLD_S, TELLING_BYTES
from tests.app.watching import assert_nothing_is_held, by_hand, counted
from tests.kit.clock import ManualClock
from tests.kit.raw import connect, head
from tests.kit.running import Running, running
from tests.kit.scripted import OK, Peer, Scripted
from tests.kit.waiting import bounded, until

MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
EVENT = b"event: ping\ndata: {}\n\n"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
)
BUDGET = "retry_budget: {ratio: 0, floor: 1 per minute}"
SESSION = {"x_claude_code_session_id": "s", "x_api_key": "k"}


async def cuts_the_first(peer: Peer) -> None:
    """The first call's answer breaks off after its first event; the others get theirs."""
    while True:
        await peer.request()
        if len(peer.requests) == 1:
            await peer.send(STREAM)
            return
        await peer.send(OK)


@asynccontextmanager
async def cutting(
    dialect: str = "anthropic",
    script: Callable[[Peer], Awaitable[None]] = cuts_the_first,
    *,
    upstream: str = BUDGET,
) -> AsyncIterator[tuple[Running, Scripted, ManualClock]]:
    async with Scripted(script) as scripted:
        yaml = (
            f"upstreams: {{up: {{url: '{scripted.url}', dialect: {dialect}, breaker: off, {upstream}}}}}\n"
            "routes: [{name: api, path: /, upstream: up}]\n"
        )
        async with running(yaml) as proxy:
            yield proxy, scripted, by_hand(proxy)
            await assert_nothing_is_held(proxy)
            assert not proxy.proxy._admission._pauses


def asked(length: int = 0, *, stream: str = ',"stream":true') -> bytes:
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]' % (b"x" * length)
    return body + stream.encode() + b"}"


async def post(proxy: Running, body: bytes, path: str = MESSAGES, *, parts: int = 1, **headers: str):
    async with connect(proxy.url) as raw:
        await raw.send(head("POST", path, content_length=str(len(body)), **(headers or SESSION)))
        for at in range(parts):
            await until(lambda: True)
            await asyncio.sleep(0)
            await raw.send(body[at * len(body) // parts : (at + 1) * len(body) // parts])
        return await raw.reply()


async def held_then_told(proxy: Running, clock: ManualClock, body: bytes, path: str = MESSAGES):
    """The answer to a call that is held; time goes on only when it is."""
    task = asyncio.create_task(post(proxy, body, path))
    pauses = proxy.proxy._admission._pauses
    await until(lambda: pauses or task.done())
    assert pauses, "it was not held"
    clock.advance(HOLD_S)
    for pause in pauses:
        pause.set_result(None)
    return await bounded(task)


REPEATS = {
    "left out": ("", 0),
    "false": (',"stream":false', 0),
    "the same": (',"stream":true', 0),
    "long, left out": ("", TELLING_BYTES),
    "long, false": (',"stream":false', TELLING_BYTES),
    "long, the same": (',"stream":true', TELLING_BYTES),
}


@pytest.mark.parametrize(("stream", "length"), REPEATS.values(), ids=REPEATS)
async def test_the_instant_repeat_is_held_for_a_second_and_pays(stream, length):
    """As Claude Code does it: not streamed, so of another length."""
    async with cutting() as (proxy, upstream, clock):
        first = await post(proxy, asked(length))
        assert b"event: error" in first.body
        clock.advance(0.2)
        task = asyncio.create_task(post(proxy, asked(length, stream=stream)))
        pauses = proxy.proxy._admission._pauses
        await until(lambda: pauses)
        assert len(upstream.requests) == 1
        assert not sum(cap.in_flight for cap in proxy.proxy.state().caps), "it holds nothing meanwhile"
        clock.advance(HOLD_S)
        for pause in pauses:
            pause.set_result(None)
        assert (await bounded(task)).status == 200
        assert len(upstream.requests) == 2
        refused = await post(proxy, asked(), **SESSION, x_stainless_retry_count="1")
        assert refused.headers["x-backpressure-reason"] == "retry_budget_spent", "the repeat paid the budget"
        assert (await counted(proxy))["repeats_held_total"] == 1


async def test_it_is_held_until_a_second_after_the_cut_by_the_clock():
    async with cutting() as (proxy, upstream, clock):
        await post(proxy, asked())
        clock.advance(HOLD_S - 0.02)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await post(proxy, asked(stream=""))).status == 200
        assert loop.time() - began >= 0.019, "the rest of the second"
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("length", [0, TELLING_BYTES], ids=["short", "long"])
async def test_a_body_that_came_in_pieces_is_known_again(length):
    async with cutting() as (proxy, _, clock):
        await post(proxy, asked(length), parts=3)
        assert (await held_then_told(proxy, clock, asked(length, stream=""))).status == 200


async def test_a_repeat_after_the_second_is_not_held_but_pays():
    async with cutting() as (proxy, _, clock):
        await post(proxy, asked())
        clock.advance(HOLD_S)
        assert (await post(proxy, asked(stream=""))).status == 200
        refused = await post(proxy, asked(), **SESSION, x_stainless_retry_count="1")
        assert refused.headers["x-backpressure-reason"] == "retry_budget_spent"
        assert (await counted(proxy))["repeats_held_total"] == 0


@pytest.mark.parametrize("length", [0, TELLING_BYTES], ids=["short", "long"])
async def test_another_call_is_not_held(length):
    async with cutting() as (proxy, _, _clock):
        await post(proxy, asked(length))
        other = [
            (asked(length + 1, stream=""), SESSION),
            (asked(length, stream=""), {**SESSION, "x_claude_code_session_id": "t"}),
            (asked(length, stream=""), {**SESSION, "x_api_key": "another"}),
        ]
        for body, headers in other:
            assert (await post(proxy, body, **headers)).status == 200
        assert (await counted(proxy))["repeats_held_total"] == 0


async def test_a_failure_before_the_first_byte_holds_nobody():
    async def fails(peer: Peer) -> None:
        await peer.request()
        if len(peer.requests) > 1:
            await peer.send(OK)

    async with cutting(script=fails) as (proxy, _, _clock):
        assert (await post(proxy, asked())).status == 502
        assert (await post(proxy, asked(stream=""))).status == 200
        assert (await counted(proxy))["repeats_held_total"] == 0


async def test_whoever_leaves_while_it_is_held_costs_nothing():
    async with cutting() as (proxy, upstream, _):
        await post(proxy, asked())
        async with connect(proxy.url) as raw:
            body = asked(stream="")
            await raw.send(head("POST", MESSAGES, content_length=str(len(body)), **SESSION) + body)
            await until(lambda: proxy.proxy._admission._pauses)
            raw.leave()
            await until(lambda: not proxy.proxy._admission._pauses)
        await assert_nothing_is_held(proxy)
        assert len(upstream.requests) == 1
        assert (await counted(proxy))["calls_offered_total"] == 1


async def test_a_drain_ends_the_hold_with_its_own_word():
    async with cutting() as (proxy, upstream, _):
        await post(proxy, asked())
        task = asyncio.create_task(post(proxy, asked(stream="")))
        await until(lambda: proxy.proxy._admission._pauses)
        proxy.proxy.drain()
        assert (await bounded(task)).headers["x-backpressure-reason"] == "draining"
        assert len(upstream.requests) == 1


async def test_a_hold_ends_with_the_callers_own_deadline():
    async with cutting() as (proxy, upstream, clock):
        await post(proxy, asked())
        headers = {**SESSION, "x_deadline_ms": "500"}
        task = asyncio.create_task(post(proxy, asked(stream=""), **headers))
        began = asyncio.get_running_loop().time()
        await until(lambda: proxy.proxy._admission._pauses)
        clock.advance(0.5)
        refused = await bounded(task)
        assert asyncio.get_running_loop().time() - began < HOLD_S
        assert refused.headers["x-backpressure-reason"] == "waited_too_long"
        assert len(upstream.requests) == 1


async def test_a_cut_stream_of_responses_ends_with_the_event_that_every_client_reads():
    async with cutting("openai") as (proxy, _, _clock):
        reply = await post(proxy, asked(), RESPONSES)
        assert reply.body.startswith(EVENT)
        name, data = reply.body[len(EVENT) :].strip().split(b"\n")
        assert name == b"event: response.failed"
        event = json.loads(data.removeprefix(b"data: "))
        assert event["type"] == "response.failed"
        assert event["response"]["model"] == "m"
        assert event["response"]["error"]["code"] == event["error"]["code"] == "upstream_failed"
        assert event["error"]["type"] == "server_error"
        assert event["error"]["backpressure"]["reason"] == "upstream_failed"


async def test_a_cut_chat_stream_ends_with_an_error_and_no_done():
    async with cutting("openai") as (proxy, _, _clock):
        reply = await post(proxy, asked(), "/v1/chat/completions")
        last = reply.body.strip().rpartition(b"\n\n")[2]
        assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "server_error"
        assert b"[DONE]" not in reply.body
