"""Which task and which agent a call belongs to, by what agents send without being told to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.run_names import AGENT, MOST_MET, PARENT, RunNames, trace_id
from proxy.settings.runs import DEFAULT
from tests.app.watching import assert_nothing_is_held, waiting
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo
from tests.kit.waiting import until

TRACE = b"0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = b"00-" + TRACE + b"-b7ad6b7169203331-01"
CHATS = "/openai/v1/chat/completions"
MESSAGES = "/anthropic/v1/messages"
ONE_A_RUN = "buckets: [{rate: 1 request/hour, burst: 1, per: run}]\nqueue: {size: 0}"
MESSAGE = b'{"model":"demo","max_tokens":9,"messages":[{"role":"user","content":"hi"}]'
TOOL = {"name": "search", "arguments": {"query": "room"}}


def names(*sources: str) -> RunNames:
    return RunNames(sources or DEFAULT)


def run(headers: dict[bytes, bytes], *sources: str, caller: str = "ann") -> str:
    return names(*sources).of(headers, caller)[0]


@pytest.mark.parametrize("header", [each for each in DEFAULT if not each.startswith("body.")])
def test_what_agents_send_names_their_run(header):
    said = {header.encode(): b"0199-ab"}
    assert run(said) == run(dict(said)) != run({header.encode(): b"0199-ac"})
    assert run(said).startswith("ann/")
    assert run(said) != run(said, caller="bob"), "two callers never share one"
    assert "0199" not in run(said)


def test_the_first_source_that_says_something_counts():
    both = {b"x-run-id": b"7", b"session-id": b"8"}
    assert run(both) == run({b"x-run-id": b"7"})
    assert run(both, "session-id", "x-run-id") == run({b"session-id": b"8"})
    assert run({b"x-run-id": b" ", b"session-id": b"8"}) == run({b"session-id": b"8"})
    assert run({b"authorization": b"Bearer k"}) == ""


def test_a_sub_agent_and_its_parent_are_told_apart_within_their_run():
    session = {b"x-claude-code-session-id": b"s"}
    main = names().of(session, "ann")
    child = names().of({**session, AGENT: b"a1", PARENT: b"a0"}, "ann")
    parent = names().of({**session, AGENT: b"a0"}, "ann")
    assert main[1:] == ("", "")
    assert main[0] == child[0] == parent[0]
    assert child[2] == parent[1] != child[1]
    assert parent[2] == ""
    assert names().of({AGENT: b"a1", PARENT: b"a0"}, "ann") == ("", "", ""), "of no run"


def test_a_trace_is_a_run_where_it_is_configured():
    assert run({b"traceparent": TRACEPARENT}) == ""
    of_trace = run({b"traceparent": TRACEPARENT}, "traceparent")
    assert of_trace == run({b"traceparent": TRACEPARENT[:-19] + b"c7ad6b7169203331-00"}, "traceparent")
    assert run({b"traceparent": b"nonsense", b"x-run-id": b"7"}, "traceparent", "x-run-id") == run(
        {b"x-run-id": b"7"}
    )


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (TRACEPARENT, TRACE),
        (b" " + TRACEPARENT + b" ", TRACE),
        (b"01-" + TRACEPARENT[3:] + b"-more", TRACE),  # a later version may go on
        (b"ff-" + TRACEPARENT[3:], b""),
        (b"00-" + b"0" * 32 + TRACEPARENT[35:], b""),
        (TRACEPARENT.upper(), b""),
        (TRACEPARENT[:40], b""),
        (b"", b""),
    ],
)
def test_a_trace_is_read_as_its_standard_says(value, trace):
    assert trace_id(value) == trace


@given(st.binary() | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}"))
def test_no_value_of_a_header_makes_it_raise(value):
    assert len(trace_id(value)) in (0, 32)
    found = names("traceparent", "x-run-id").of(
        {b"traceparent": value, b"x-run-id": value, AGENT: value}, "a"
    )
    assert all(len(each) <= len("a/") + 12 for each in found)


def test_the_values_remembered_are_bounded():
    who = names()
    for number in range(MOST_MET + 10):
        who.of({b"x-run-id": b"%d" % number}, "ann")
    assert len(who._met) <= MOST_MET


async def reasons(raw, posts) -> list[str]:
    found = []
    for path, body, headers in posts:
        reply = await raw.post(path, body, **headers)
        found.append(reply.headers.get("x-backpressure-reason", str(reply.status)))
    return found


async def test_each_session_of_an_agent_has_an_allowance_of_its_own():
    async with before_demo(route=ONE_A_RUN) as proxy, connect(proxy.url) as raw:
        one, two = {"x_claude_code_session_id": "1"}, {"x_claude_code_session_id": "2"}
        told = await reasons(
            raw, [(CHATS, CHAT, each) for each in (one, two, {**one, "x_api_key": "k"}, one)]
        )
        assert told == ["200", "200", "200", "bucket_empty"]
        assert not any("session" in line or '"1"' in line for line in proxy.log.getvalue().splitlines())


async def test_a_call_that_waits_says_whose_it_is():
    async with before_demo(upstream="concurrency: 1") as proxy, connect(proxy.url) as raw:
        proxy.upstream.behaviour.latency_s = 60.0
        async with connect(proxy.url) as other:
            await other.send(head("POST", CHATS, content_length=str(len(CHAT))) + CHAT)
            await until(lambda: proxy.upstream.ledger.arrivals == 1)
            said = {"x_claude_code_session_id": "s", "x_claude_code_agent_id": "a1"}
            said["x_claude_code_parent_agent_id"] = "a0"
            await raw.send(head("POST", CHATS, content_length=str(len(CHAT)), **said) + CHAT)
            await until(lambda: waiting(proxy) == 1)
            (call,) = proxy.proxy.telemetry._waiting
            assert isinstance(call, Call)
            expected = names().of(
                {name.replace("_", "-").encode(): v.encode() for name, v in said.items()}, "x"
            )
            assert (call.run.partition("/")[2], call.agent, call.parent) == (expected[0][2:], *expected[1:])
            raw.leave()
            await until(lambda: not waiting(proxy))
            other.leave()
        await assert_nothing_is_held(proxy)


def with_user(user: str) -> bytes:
    return MESSAGE + b',"metadata":{"user_id":' + json.dumps(user).encode() + b"}}"


async def test_a_body_names_the_run_where_that_is_configured():
    top = "runs: {identify: [x-run-id, body.metadata.user_id, body.prompt_cache_key]}"
    async with before_demo(route=ONE_A_RUN, top=top) as proxy, connect(proxy.url) as raw:
        a = json.dumps({"device_id": "d", "session_id": "a"})
        a_again, b = json.dumps({"session_id": "a", "more": 1}), json.dumps({"session_id": "b"})
        posts = [(MESSAGES, with_user(user), {}) for user in (a, b, a_again, "plain", "plain")]
        assert await reasons(raw, posts) == ["200", "200", "bucket_empty", "200", "bucket_empty"]
        keyed = CHAT[:-1] + b',"prompt_cache_key":"%s"}'
        posts = [(CHATS, keyed % key, {}) for key in (b"k", b"l", b"k")]
        posts.append((CHATS, keyed % b"k", {"x_run_id": "another"}))
        assert await reasons(raw, posts) == ["200", "200", "bucket_empty", "200"]


async def test_a_body_is_not_awaited_where_a_header_names_the_run():
    top = "runs: {identify: [x-run-id, body.prompt_cache_key]}"
    async with before_demo(route=ONE_A_RUN, top=top) as proxy, connect(proxy.url) as raw:
        assert await reasons(raw, [(CHATS, CHAT, {"x_run_id": "7"})]) == ["200"]
        await raw.send(head("POST", CHATS, content_length="99", x_run_id="7"))
        assert (await raw.reply()).headers["x-backpressure-reason"] == "bucket_empty", "and no body was sent"


async def test_a_body_that_cannot_be_read_before_the_decision_is_refused_for_that_by_nobody():
    top = "peek: 1KiB\nruns: {identify: [x-run-id, body.prompt_cache_key]}"
    async with before_demo(top=top) as proxy, connect(proxy.url) as raw:
        assert (await raw.post(CHATS, CHAT + b" " * 2000)).status == 200
        await raw.send(
            head("POST", CHATS, transfer_encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
        )
        assert (await raw.reply()).status == 200
        assert (await raw.post(CHATS, b"\xff{")).status == 400, "the upstream's own word"
        assert proxy.upstream.ledger.arrivals == 3


def tool(session: str, number: int) -> bytes:
    meta = {"x-codex-turn-metadata": json.dumps({"session_id": session, "turn_id": str(number)})}
    params = {**TOOL, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()


async def test_a_codex_session_is_one_run_for_its_models_and_its_tools():
    mine = {"session_id": "s1", "accept": "application/json, text/event-stream"}
    async with before_demo(route=ONE_A_RUN) as proxy, connect(proxy.url) as raw:
        for number, session in enumerate(("s1", "s2")):
            reply = await raw.post("/mcp", tool(session, number), mcp_session_id="m", accept=mine["accept"])
            assert 'isError":true' not in reply.text, reply.text
        again = await raw.post("/mcp", tool("s1", 3), mcp_session_id="m", accept=mine["accept"])
        assert again.headers["x-backpressure-reason"] == "bucket_empty"
        by_session = await raw.post("/mcp", tool("", 4), mcp_session_id="m", accept=mine["accept"])
        assert by_session.headers.get("x-backpressure-reason") is None, "the MCP session is a run of its own"
