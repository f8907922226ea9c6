"""An answer that its upstream cuts midway: the SDKs raise, and never take what came for the whole."""

from __future__ import annotations

import anthropic
import httpx2
import openai
import pytest

from proxy.core.verdict import Outcome
from proxy.demo import Behaviour, Cut
from tests.app.watching import assert_nothing_is_held
from tests.clients.refusing import ASK, KEY, NO_BREAKER
from tests.kit.running import before_demo, running
from tests.kit.scripted import Scripted

OPENAI_EVENT = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"demo",'
    b'"choices":[{"index":0,"delta":{"content":"half"},"finish_reason":null}]}\n\n'
)
ANTHROPIC_EVENT = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"id":"1","type":"message","role":"assistant","model":"demo",'
    b'"content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
)
BROKEN = (openai.APIConnectionError, anthropic.APIConnectionError, httpx2.TransportError)
SDKS = pytest.mark.parametrize("sdk", ["openai", "anthropic"])


def cutting(first_event: bytes):
    """One whole event of a stream without a length, then a reset."""

    async def script(peer):
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"%x\r\n%b\r\n" % (len(first_event), first_event)
        )
        peer.reset()

    return script


def before(url: str, dialect: str) -> str:
    return (
        f"upstreams: {{up: {{url: '{url}', dialect: {dialect}, breaker: off}}}}\n"
        "routes: [{name: chat, path: /, upstream: up}]\n"
    )


@pytest.mark.parametrize("share", ["within an event", "of a plain answer"])
@SDKS
async def test_a_cut_within_an_event_or_a_plain_answer_is_a_connection_error(sdk, share):
    behaviour = Behaviour(latency_s=0.0, event_gap_s=0.0, mode=Cut())
    streamed = share == "within an event"
    async with before_demo(behaviour, upstream=NO_BREAKER) as proxy:
        with pytest.raises(BROKEN):
            await consume(proxy, sdk, streamed=streamed)
        (flow,) = proxy.proxy.telemetry._flows.every.values()
        assert dict(flow.settled) == {Outcome.FAILED: 1}
        (line,) = [line for line in proxy.lines() if line["event"] == "failed"]
        assert line["reason"] == "upstream_failed"
        assert "cut after" in line["detail"]
        await assert_nothing_is_held(proxy)


async def test_a_cut_between_two_events_ends_with_the_dialects_error_event_for_openai():
    async with Scripted(cutting(OPENAI_EVENT)) as upstream, running(before(upstream.url, "openai")) as proxy:
        sdk = openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0)
        async with sdk:
            chunks = await sdk.chat.completions.create(**ASK, stream=True)
            said = []
            with pytest.raises(openai.APIError) as caught:
                await note(chunks, said)
        assert [chunk.choices[0].delta.content for chunk in said] == ["half"]
        assert caught.value.code == "upstream_failed"
        assert not isinstance(caught.value, openai.APIConnectionError), "it was told why"
        await assert_nothing_is_held(proxy)


async def test_a_cut_between_two_events_ends_with_the_dialects_error_event_for_anthropic():
    async with (
        Scripted(cutting(ANTHROPIC_EVENT)) as upstream,
        running(before(upstream.url, "anthropic")) as proxy,
    ):
        sdk = anthropic.AsyncAnthropic(base_url=proxy.url, api_key=KEY, max_retries=0)
        async with sdk:
            events = await sdk.messages.create(**ASK, stream=True)
            said = []
            with pytest.raises(anthropic.APIStatusError) as caught:
                await note(events, said)
        assert [event.type for event in said] == ["message_start"]
        assert caught.value.body["error"]["type"] == "api_error"
        await assert_nothing_is_held(proxy)


async def note(stream, said):
    """Read a stream to its end, keeping what came."""
    async for each in stream:
        said.append(each)


async def consume(proxy, sdk, *, streamed):
    if sdk == "openai":
        made = openai.AsyncOpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY, max_retries=0)
        async with made:
            answer = await made.chat.completions.create(**ASK, stream=streamed)
            return [chunk async for chunk in answer] if streamed else answer
    made = anthropic.AsyncAnthropic(base_url=f"{proxy.url}/anthropic", api_key=KEY, max_retries=0)
    async with made:
        answer = await made.messages.create(**ASK, stream=streamed)
        return [event async for event in answer] if streamed else answer
