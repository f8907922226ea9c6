"""What the proxy counts beside what the upstream does: plain, streamed, cut, cancelled, failed, cached."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.core.costs import ENOUGH
from proxy.demo import Behaviour, Cut, Hang, Outage, Refuse, serve_demo
from proxy.demo.calling import ToolCall
from proxy.demo.ledger import Entry
from tests.kit.running import Running, running
from tests.kit.scripted import Peer, Scripted, saying
from tests.kit.waiting import bounded, until

DIALECTS = ("openai", "anthropic", "gemini")
PATHS = {
    "openai": "/openai/v1/chat/completions",
    "responses": "/openai/v1/responses",
    "anthropic": "/anthropic/v1/messages",
    "gemini": "/gemini/v1beta/models/demo-large:generateContent",
}
STREAMED = "/gemini/v1beta/models/demo-large:streamGenerateContent?alt=sse"
"""What the other APIs are told in the body."""

TEXT_ASKED = "Say what there is room for. " * 30
ASK: dict[str, Any] = {
    "model": "demo-large",
    "messages": [{"role": "user", "content": TEXT_ASKED}],
    "max_tokens": 200,
}
ASKS: dict[str, dict[str, Any]] = {
    "openai": ASK,
    "responses": {"model": "demo-large", "input": TEXT_ASKED, "max_output_tokens": 200},
    "anthropic": ASK,
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": TEXT_ASKED}]}],
        "generationConfig": {"maxOutputTokens": 200},
    },
}
OFFERS: dict[str, dict[str, Any]] = {
    "openai": {"type": "function", "function": {"name": "weather"}},
    "responses": {"type": "function", "name": "weather"},
    "anthropic": {"name": "weather", "input_schema": {"type": "object"}},
    "gemini": {"functionDeclarations": [{"name": "weather"}]},
}
"""A tool, as each API is offered one."""

WORDS = 60
NEAR = 0.1
"""What is not told is counted to within 10 %."""


def yaml(
    url: str, bucket: str = "{rate: 1 token/hour, burst: 1M, per: caller}", ask_usage: str = "true"
) -> str:
    lines = ["upstreams:"]
    for name in DIALECTS:
        asks = f", ask_usage: {ask_usage}" if name == "openai" else ""
        lines.append(f"  {name}: {{url: '{url}', dialect: {name}, breaker: off, retry_budget: off{asks}}}")
    lines.append("routes:")
    for name in DIALECTS:
        lines += [f"  - name: {name}", f"    path: /{name}/", f"    upstream: {name}"]
        lines += ["    queue: {size: 0}", f"    buckets: [{bucket}]"]
    return "\n".join(lines) + "\n"


def size(ask: object) -> int:
    return len(httpx.Request("POST", "http://proxy", json=ask).content)


class Both:
    """The proxy before the demo upstream, and what each of the two has counted."""

    def __init__(self, proxy: Running, client: httpx.AsyncClient, behaviour: Behaviour) -> None:
        self.proxy = proxy
        self.client = client
        self.behaviour = behaviour
        self._counted = (0.0, 0.0)

    async def post(self, api: str, **more: object) -> httpx.Response:
        return await self.client.send(self.request(api, **more))

    def request(self, api: str, *, stream: bool = False, **more: object) -> httpx.Request:
        streams = {"stream": True} if stream and api != "gemini" else {}
        path = STREAMED if stream and api == "gemini" else PATHS[api]
        return self.client.build_request("POST", self.proxy.url + path, json=ASKS[api] | streams | more)

    def spent(self) -> float:
        """Tokens that the buckets have lost."""
        return sum(row.burst - row.level for row in self.proxy.proxy.state().buckets)

    @property
    def entry(self) -> Entry:
        """The upstream's own record of the last call."""
        assert self.proxy.upstream is not None
        return self.proxy.upstream.ledger.entries[-1]

    def paid(self) -> int:
        """Tokens by the upstream's own count: of all its calls."""
        assert self.proxy.upstream is not None
        return sum(each.input_tokens + each.output_tokens for each in self.proxy.upstream.ledger.entries)

    async def ended(self) -> None:
        """Every call has been settled."""
        await until(lambda: self.proxy.proxy._pipeline._running == 0)

    async def sums(self, name: str) -> dict[str, float]:
        """A counter of tokens, by its label besides the route."""
        sums: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(await self.proxy.metrics()):
            for sample in family.samples:
                if sample.name == f"backpressure_tokens_{name}":
                    (label,) = sample.labels.keys() - {"route"}
                    sums[sample.labels[label]] += sample.value
        return sums

    async def last(self) -> tuple[float, float]:
        """Input and output that were counted since this was last asked."""
        sums = await self.sums("used_total")
        now = sums["input"] + sums["cached"], sums["output"]
        before, self._counted = self._counted, now
        return now[0] - before[0], now[1] - before[1]

    async def assert_near(self) -> None:
        """What was counted since `last` was asked is near what the upstream has for its last call."""
        await until(lambda: self.entry.ending is not None)
        await self.ended()
        given, taken = await self.last()
        assert given == pytest.approx(self.entry.input_tokens, rel=NEAR)
        assert taken == pytest.approx(self.entry.output_tokens, rel=NEAR)


@asynccontextmanager
async def both(behaviour: Behaviour | None = None, **options: str) -> AsyncIterator[Both]:
    behaviour = behaviour or Behaviour(latency_s=0.0, event_gap_s=0.0, stream_events=WORDS)
    async with serve_demo(behaviour) as demo, httpx.AsyncClient() as client:
        async with running(yaml(demo.url, **options)) as proxy:
            proxy.upstream = demo.upstream
            yield Both(proxy, client, behaviour)


# ── exact wherever usage arrives ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cached", [0.0, 0.4])
async def test_what_is_told_is_counted_exactly(dialect: str, stream: bool, cached: float) -> None:
    async with both() as seen:
        seen.behaviour.cached = cached
        for _ in range(ENOUGH + 2):
            assert (await seen.post(dialect, stream=stream)).status_code == 200
        await seen.ended()
        free = 0
        if dialect == "anthropic":  # what is read from its cache counts to no limit
            free = (ENOUGH + 2) * int(seen.entry.input_tokens * cached)
        assert seen.spent() == pytest.approx(seen.paid() - free, abs=0.1)
        charged = await seen.sums("charged_total")
        assert (charged["exact"], charged["estimated"]) == (seen.paid() - free, 0.0)


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_call_is_counted_exactly(api: str, stream: bool) -> None:
    async with both() as seen:
        seen.behaviour.calls = ToolCall("weather", {"city": "Paris"})
        reply = await seen.post(api, stream=stream, tools=[OFFERS[api]])
        assert "weather" in reply.text
        await seen.ended()
        assert seen.entry.output_tokens == 1
        assert seen.spent() == pytest.approx(seen.paid(), abs=0.1)
        assert await seen.sums("charged_total") == {"exact": seen.paid(), "estimated": 0.0}


async def test_a_stream_is_asked_for_its_usage_and_its_caller_sees_nothing_of_it() -> None:
    async with both() as seen:
        direct = seen.proxy.upstream
        assert direct is not None
        own = {"stream": True, "stream_options": {"include_usage": True}}
        with_usage = await seen.post("openai", **own)
        asked = seen.entry.body_bytes
        without = await seen.post("openai", stream=True)
        assert seen.entry.body_bytes > len(
            httpx.Request("POST", "http://x", json=ASK | {"stream": True}).content
        )
        assert asked == len(httpx.Request("POST", "http://x", json=ASK | own).content)
        assert '"usage":{' in with_usage.text
        assert "usage" not in without.text
        assert without.text.endswith("data: [DONE]\n\n")
        frames = [json.loads(line[6:]) for line in without.text.splitlines() if line.startswith("data: {")]
        assert len(frames) == WORDS + 2
        assert all(frame["choices"] for frame in frames)
        assert seen.spent() == pytest.approx(seen.paid(), abs=0.1)


@pytest.mark.parametrize("dialect", PATHS)
async def test_input_and_output_have_buckets_of_their_own(dialect: str) -> None:
    for unit in ("input", "output"):
        async with both(bucket=f"{{rate: 1 {unit} token/hour, burst: 1M}}") as seen:
            seen.behaviour.cached = 0.4
            await seen.post(dialect)
            told = seen.entry.input_tokens
            free = int(told * 0.4) if dialect == "anthropic" else 0
            wanted = told - free if unit == "input" else seen.entry.output_tokens
            assert seen.spent() == pytest.approx(wanted, abs=0.1)


# ── within a tenth elsewhere, and never lost ────────────────────────────────────────────────────────


async def learn(seen: Both, dialect: str) -> None:
    """Some calls that tell, streamed and plain."""
    for stream in (True, False):
        for _ in range(ENOUGH):
            assert (await seen.post(dialect, stream=stream)).status_code == 200
    await seen.ended()
    await seen.last()


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("learnt", [False, True])
async def test_a_stream_that_is_cut_has_cost_what_was_delivered(dialect: str, learnt: bool) -> None:
    async with both() as seen:
        if learnt:
            await learn(seen, dialect)
        seen.behaviour.mode, seen.behaviour.event_gap_s = Cut(), 0.005  # a reset takes with it what is unread
        with contextlib.suppress(httpx.HTTPError):  # or its last event tells
            await seen.post(dialect, stream=True)
        await seen.assert_near()
        assert seen.entry.output_tokens == WORDS // 2
        charged = await seen.sums("charged_total")
        assert charged["estimated"] == pytest.approx(seen.entry.input_tokens + WORDS // 2, rel=NEAR)


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_plain_answer_that_is_cut_has_cost_as_much_as_usual(dialect: str) -> None:
    async with both() as seen:
        await learn(seen, dialect)
        seen.behaviour.mode = Cut()
        with pytest.raises(httpx.HTTPError):
            await seen.post(dialect)
        await seen.assert_near()
        assert seen.entry.output_tokens == WORDS, "it was written whole"


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("learnt", [False, True])
async def test_a_caller_that_leaves_a_stream_has_paid_for_what_it_got(dialect: str, learnt: bool) -> None:
    async with both() as seen:
        if learnt:
            await learn(seen, dialect)
        seen.behaviour.event_gap_s = 0.02
        reply = await seen.client.send(seen.request(dialect, stream=True), stream=True)
        async for _ in reply.aiter_bytes():
            if seen.entry.output_tokens >= 30:
                break
        await reply.aclose()
        await seen.assert_near()
        assert 30 <= seen.entry.output_tokens < WORDS


async def test_a_caller_that_leaves_before_any_answer_has_paid_for_what_it_sent() -> None:
    async with both() as seen:
        await learn(seen, "openai")
        seen.behaviour.mode = Hang()
        assert seen.proxy.upstream is not None
        ledger = seen.proxy.upstream.ledger
        call = asyncio.create_task(seen.post("openai"))
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await seen.assert_near()


@pytest.mark.parametrize("mode", [Outage("500"), Outage("reset"), Outage("close"), Refuse(0.0)])
async def test_a_call_that_failed_has_cost_nothing(mode: Any) -> None:
    async with both() as seen:
        seen.behaviour.mode = mode
        with contextlib.suppress(httpx.HTTPError):
            await seen.post("openai")
        await seen.ended()
        assert seen.paid() == 0
        assert seen.spent() == pytest.approx(0, abs=0.1)


async def test_where_it_is_not_to_be_asked_a_stream_is_counted_by_its_events() -> None:
    async with both(ask_usage="false") as seen:
        await learn(seen, "openai")
        assert (await seen.sums("charged_total"))["estimated"]
        assert (await seen.post("openai", stream=True)).status_code == 200
        assert seen.entry.body_bytes == size(ASK | {"stream": True})
        await seen.assert_near()


# ── tools, Responses, Gemini: by what their APIs send ───────────────────────────────────────────────


def sse(*events: object, name: bool = False) -> bytes:
    out = []
    for event in events:
        line = f"event: {event['type']}\n" if name and isinstance(event, dict) else ""
        out.append(f"{line}data: {json.dumps(event, separators=(',', ':'))}\n\n")
    body = "".join(out).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 100]), body[at : at + 100])
            for at in range(0, len(body), 100)
        )
    )


END = b"0\r\n\r\n"
TOOL = [{"index": 0, "function": {"arguments": '{"city"'}}]
CALLS = [{"choices": [{"delta": {"role": "assistant", "tool_calls": TOOL}}], "usage": None} for _ in range(5)]
CHAT_USAGE = {"choices": [], "usage": {"prompt_tokens": 300, "completion_tokens": 9}}
TEXT = [{"type": "response.output_text.delta", "delta": "a"} for _ in range(6)]
ARGUMENTS = [{"type": "response.function_call_arguments.delta", "delta": "a"} for _ in range(6)]
DONE = {"usage": {"input_tokens": 300, "output_tokens": 14, "input_tokens_details": {"cached_tokens": 200}}}


@pytest.mark.parametrize(
    ("path", "answer", "used"),
    [
        ("chat/completions", sse(*CALLS, CHAT_USAGE) + END, 309),
        ("chat/completions", sse(*CALLS), "sent + 5"),
        ("responses", sse(*TEXT, {"type": "response.completed", "response": DONE}, name=True) + END, 314),
        ("responses", sse(*ARGUMENTS, {"type": "response.incomplete", "response": DONE}) + END, 314),
        (
            "responses",
            sse({"type": "response.failed", "response": DONE | {"error": {"code": "x"}}}) + END,
            314,
        ),
        ("responses", sse(*ARGUMENTS), "sent + 6"),
    ],
)
async def test_tools_and_responses(path: str, answer: bytes, used: Any) -> None:
    async with Scripted(saying(answer)) as upstream, running(yaml(upstream.url)) as proxy:
        async with httpx.AsyncClient() as client:
            with contextlib.suppress(httpx.HTTPError):
                await client.post(f"{proxy.url}/openai/v1/{path}", json=ASK | {"stream": True})
        await until(lambda: proxy.proxy._pipeline._running == 0)
        sent = size(ASK | {"stream": True}) / 4
        wanted = used if isinstance(used, int) else sent + int(used[-1])
        assert sum(row.burst - row.level for row in proxy.proxy.state().buckets) == pytest.approx(
            wanted, abs=0.1
        )


# ── many at once ────────────────────────────────────────────────────────────────────────────────────


async def test_a_hundred_callers_at_once_spend_no_more_than_the_bucket_holds() -> None:
    """What they use is less than what was reserved; the rest is given back, and the next ones go."""
    behaviour = Behaviour(latency_s=0.0, event_gap_s=0.0, stream_events=WORDS, slots=100)
    burst = 20_000
    async with both(behaviour, bucket=f"{{rate: 1 token/hour, burst: {burst}}}") as seen:

        async def agent(number: int) -> None:
            for _ in range(4):
                reply = await seen.post("openai", stream=bool(number % 3))
                assert reply.status_code in (200, 429)

        await asyncio.gather(*(agent(number) for number in range(100)))
        await seen.ended()
        assert seen.paid() <= burst
        counted = await seen.sums("charged_total")
        assert counted == {"exact": seen.paid(), "estimated": 0.0}, "nothing lost, nothing twice"
        # Whose place in the bucket was before those who ended first may get back too little, never too much.
        assert seen.paid() - 0.1 <= seen.spent() <= burst
        assert burst - seen.paid() < 1000, "and little is left: it would hardly have done for another call"


async def test_what_calls_used_beyond_their_estimate_is_a_debt() -> None:
    """Every call is estimated at a fifth of its cost: what they overspend is what was in flight, once."""
    body = json.dumps({"usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    burst = 3_000
    async with Scripted(script) as upstream:
        async with running(yaml(upstream.url, f"{{rate: 1 token/hour, burst: {burst}}}")) as proxy:
            async with httpx.AsyncClient() as client:
                url = proxy.url + PATHS["openai"]
                replies = await asyncio.gather(*(client.post(url, json=ASK) for _ in range(100)))
                went = sum(reply.status_code == 200 for reply in replies)
                estimate = size(ASK) / 4 + ASK["max_tokens"]
                assert went <= burst / estimate
                assert (await client.post(url, json=ASK)).status_code == 429, "until the debt is paid"
            assert min(row.level for row in proxy.proxy.state().buckets) == 0.0
