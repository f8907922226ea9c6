"""Codex CLI is refused by an event of its stream, or by a 400; everybody else by the status of the reason."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.verdict import Kind, Reason, Refusal, kind_of
from proxy.dialects.codex import needs_stream_form, version
from proxy.dialects.openai import OpenAI
from proxy.dialects.responses import refused
from proxy.dialects.words import WORDS
from tests.kit.raw import CHAT, Raw, Reply, connect, head
from tests.kit.running import before_demo

PATH = "/openai/v1/responses"
ASKED = b'{"model":"gpt-5-codex","stream":true,"input":[]}'
CODEX = {"originator": "codex_cli_rs", "accept": "text/event-stream"}
OLD = {**CODEX, "user_agent": "codex_cli_rs/0.120.0 (Debian 12.0.0; x86_64) xterm"}
NEW = {**CODEX, "user_agent": "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm"}
FULL = "buckets: [{rate: 1 request/30s, burst: 1}]\nqueue: {size: 0}"
TOLD = re.compile(r"try again in\s*(\d+(?:\.\d+)?)\s*(s|ms|seconds?)", re.IGNORECASE)
"""As Codex reads it: codex-api/src/sse/responses.rs."""


def events(body: bytes) -> list[dict[str, object]]:
    """The events of a stream, as an SSE parser finds them."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines:
            found.append(json.loads(lines["data"]))
            assert found[-1]["type"] == lines["event"]
    return found


def failed(reply: Reply) -> dict[str, dict[str, str]]:
    """The one event of a refusal, which must be its whole body."""
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream"
    (event,) = events(reply.body)
    assert event["type"] == "response.failed"
    assert event["response"]["status"] == "failed"
    return event


async def fill(raw: Raw) -> None:
    assert (await raw.post("/openai/v1/chat/completions", CHAT)).status == 200


@pytest.mark.parametrize("headers", [OLD, NEW], ids=["0.120", "0.169"])
async def test_codex_is_told_by_an_event_when_to_come_back(headers):
    async with before_demo(route=FULL) as proxy, connect(proxy.url) as raw:
        await fill(raw)
        reply = await raw.post(PATH, ASKED, **headers)
        event = failed(reply)
        error, outer = event["response"]["error"], event["error"]
        assert error["code"] == outer["code"] == "rate_limit_exceeded"
        assert TOLD.search(error["message"])[1] == reply.headers["retry-after"]
        assert error["message"] == outer["message"]
        assert event["response"]["model"] == "gpt-5-codex"
        assert reply.headers["x-backpressure-reason"] == "bucket_empty"
        assert reply.headers["x-backpressure-scope"] == "route:openai"
        assert (await raw.post(PATH, ASKED, **headers)).status == 200, "and the connection goes on"


@pytest.mark.parametrize(
    ("headers", "body", "path"),
    [
        ({**OLD, "originator": "opencode"}, ASKED, PATH),
        ({"user_agent": OLD["user_agent"]}, ASKED, PATH),
        (OLD, b'{"model":"m","input":[]}', PATH),
        (OLD, b'{"model":"m","stream":true}', "/openai/v1/chat/completions"),
        (OLD, ASKED, PATH + "/compact"),
    ],
    ids=["other originator", "no originator", "no stream", "chat", "other path"],
)
async def test_whoever_reads_a_status_gets_one(headers, body, path):
    async with before_demo(route=FULL) as proxy, connect(proxy.url) as raw:
        await fill(raw)
        reply = await raw.post(path, body, **headers)
        assert reply.status == 429
        assert reply.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(("word", "old", "new"), [("auto", 200, 429), ("off", 429, 429), ("on", 200, 200)])
async def test_it_can_be_switched(word, old, new):
    async with before_demo() as before:
        demo = before.proxy.settings.upstreams["openai"].url
        yaml = (
            f"upstreams: {{openai: {{url: '{demo}', dialect: openai}}}}\n"
            f"routes: [{{name: r, path: /openai, upstream: openai, codex_compatibility: {word}, "
            "buckets: [{rate: 1 request/30s, burst: 1}], queue: {size: 0}}]\n"
        )
        before.reload(yaml)
        async with connect(before.url) as raw:
            await fill(raw)
            assert (await raw.post(PATH, ASKED, **OLD)).status == old
            assert (await raw.post(PATH, ASKED, **NEW)).status == new
            unknown = await raw.post(PATH, ASKED, **CODEX, user_agent="codex")
            assert unknown.status == old, "every release understands that form"


async def test_a_long_body_is_not_awaited_to_refuse_it():
    async with before_demo(route=FULL) as proxy, connect(proxy.url) as raw:
        await fill(raw)
        await raw.send(head("POST", PATH, content_length="100000", **OLD))
        event = failed(await raw.reply())
        assert event["response"]["model"] == "", "nobody knows"


async def test_a_draining_proxy_ends_the_connection_of_a_codex_too():
    async with before_demo() as proxy, connect(proxy.url) as raw:
        proxy.proxy.drain()
        reply = await raw.post(PATH, ASKED, **OLD)
        assert TOLD.search(failed(reply)["response"]["error"]["message"])
        assert reply.headers["x-backpressure-reason"] == "draining"
        assert reply.headers["connection"] == "close"
        assert await raw.is_closed()


async def test_a_failed_upstream_is_told_by_an_event_too():
    async with before_demo(upstream="timeouts: {connect: 1s}") as proxy, connect(proxy.url) as raw:
        proxy.reload(
            "upstreams: {gone: {url: 'http://127.0.0.1:9', dialect: openai, breaker: off}}\n"
            "routes: [{name: r, path: /openai, upstream: gone}]\n"
        )
        reply = await raw.post(PATH, ASKED, **OLD)
        assert reply.headers["x-backpressure-reason"] == "upstream_failed"
        failed(reply)


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("come_back", [True, False])
def test_every_refusal_invites_or_stops(reason, come_back):
    refusal = Refusal(reason, "route:r", 3.0, come_back=come_back)
    answer = refused(refusal, "m", 1)
    if kind_of(reason) in (Kind.STOP, Kind.NOT_AGAIN) or not come_back:
        assert answer.status == 400
        assert (b"x-should-retry", b"false") in answer.headers
        assert answer.body == OpenAI().refuse(refusal, None).body, "as everybody else's"
        return
    assert answer.status == 200
    (event,) = events(answer.body)
    error = event["response"]["error"]
    assert error["code"] == event["error"]["code"] == "rate_limit_exceeded"
    assert TOLD.search(error["message"])
    assert not any(word in answer.body.decode() for word in ("server_is_overloaded", "slow_down"))


async def test_a_run_that_is_spent_is_stopped_with_words_that_codex_shows():
    async with (
        before_demo(top="callers: {default: {run_budget: {calls: 1}}}") as proxy,
        connect(proxy.url) as raw,
    ):
        run = {"x_run_id": "r1"}
        assert (await raw.post(PATH, ASKED, **OLD, **run)).status == 200
        reply = await raw.post(PATH, ASKED, **OLD, **run)
        assert reply.status == 400
        assert reply.headers["x-backpressure-reason"] == "run_budget_spent"
        assert WORDS[Reason.RUN_BUDGET_SPENT].advice in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("agent", "found"),
    [
        (b"codex_cli_rs/0.120.0 (Debian)", (0, 120)),
        (b"codex_exec/0.169.0-alpha.3", (0, 169)),
        (b"codex_vscode/1.2", (1, 2)),
        (b"Codex Desktop/0.150.1 (Mac)", (0, 150)),
        (b"codex", None),
        (b"codex/x.y", None),
        (b"codex/0.99999", None),
        (b"", None),
    ],
)
def test_its_release_is_read_off_its_user_agent(agent, found):
    assert version(agent) == found


@given(st.binary() | st.from_regex(rb"codex_[a-z]*/[0-9]{1,5}\.[0-9]{0,5}"), st.binary())
def test_no_header_makes_it_raise(agent, originator):
    found = version(agent)
    assert found is None or len(found) == 2
    fields = [(b"user-agent", agent), (b"originator", originator)]
    assert needs_stream_form(fields, always=False) <= needs_stream_form(fields, always=True)
