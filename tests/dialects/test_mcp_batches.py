"""Batches of MCP messages, and the headers that name a tool beside the body."""

from __future__ import annotations

import json
from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.verdict import Reason
from proxy.dialects import Ask, Malformed, dialect_named
from proxy.dialects.mcp import refuse_all, reply_to
from proxy.dialects.routing_headers import HeaderMismatch, check_routing
from tests.dialects.refusals import example
from tests.dialects.test_hostile_bodies import bodies, requests, values
from tests.dialects.test_mcp import body_of, call, message, read

MCP = dialect_named("mcp")
PING = message(id=9, method="ping")
NOTE = message(method="notifications/progress")


def test_a_batch_of_calls_is_decided_message_by_message() -> None:
    ask = read([call(1, "search"), NOTE, call("two", "create"), PING, message(id=3, result={})])
    assert (ask.ids, ask.batch, ask.exempt, ask.tool) == ((1, "two", 9), True, False, "")
    assert [(part.tool, part.ids, part.exempt) for part in ask.parts] == [
        ("search", (1,), False),
        ("", (), True),
        ("create", ("two",), False),
        ("", (9,), True),
        ("", (), True),
    ]


@pytest.mark.parametrize("content", [[call(1)], [PING, NOTE], call(1), PING])
def test_what_is_one_call_or_none_has_no_parts(content: object) -> None:
    assert read(content).parts == ()


def test_the_parts_keep_their_bytes_whatever_their_spelling() -> None:
    first, second = (
        b'{"id" : 1.0e0, "x":1, "method":"ping"}',
        b'{"method":"tools\\/call","id":2,"params":{"name":"a"}}',
    )
    with pytest.raises(Malformed):
        MCP.read(b"[" + first + b" , " + second + b"]")
    first = b'{ "id" : 1, "method" : "ping" }'
    ask = MCP.read(b" [\n" + first + b" , " + second + b"] ")
    assert [part.raw for part in ask.parts] == [first, second]
    assert ask.parts[1].method == "tools/call"


@given(st.lists(requests | values, min_size=2, max_size=5))
def test_what_is_made_of_the_parts_is_read_as_the_whole_was(content: list[object]) -> None:
    body = json.dumps(content).encode("utf-8", "surrogatepass")
    try:
        ask = MCP.read(body)
    except Malformed:
        return
    if ask.parts:
        again = MCP.read(b"[" + b",".join(part.raw for part in ask.parts) + b"]")
        assert repr(again) == repr(ask)
        assert len(ask.parts) == len(content)


def test_a_refused_part_is_answered_by_itself() -> None:
    ask = read([call(1), message(id=2, method="resources/read")])
    first = msgspec.json.decode(reply_to(ask.parts[0], example(Reason.CAP_REACHED)))
    assert first["id"] == 1
    assert first["result"]["isError"]
    second = msgspec.json.decode(reply_to(ask.parts[1], example(Reason.CAP_REACHED)))
    assert (second["id"], second["error"]["code"]) == (2, -32010)
    as_error = msgspec.json.decode(reply_to(ask.parts[0], example(Reason.CAP_REACHED), refuse_as="http"))
    assert as_error["error"]["data"]["reason"] == "cap_reached", "a part has no status to be refused by"


def test_a_batch_refused_whole_has_the_headers_of_its_first() -> None:
    ask = read([call(1), call(2)])
    refused = [
        (part, example(reason)) for part, reason in zip(ask.parts, (Reason.SHED, Reason.PAUSED), strict=True)
    ]
    answer = refuse_all(refused, ask)
    assert (answer.status, dict(answer.headers)[b"x-backpressure-reason"]) == (200, b"shed")
    reasons = [each["result"]["_meta"]["backpressure/reason"] for each in body_of(answer)]
    assert reasons == ["shed", "paused"]
    by_status = refuse_all(refused, ask, refuse_as="http")
    assert (by_status.status, [each["id"] for each in body_of(by_status)]) == (429, [1, 2])


MATCHES = [
    ({b"mcp-method": b"tools/call", b"mcp-name": b"search"}, call(1)),
    ({b"mcp-method": b"ping"}, PING),
    ({b"mcp-method": b"prompts/get", b"mcp-name": b"any"}, message(id=1, method="prompts/get")),
    ({b"mcp-name": b"=?base64?" + b64encode("wörter".encode()) + b"?="}, call(1, "wörter")),
    ({b"mcp-method": b"notifications/x"}, NOTE),
    ({}, [call(1), call(2)]),
]
MISMATCHES = [
    ({b"mcp-name": b"search"}, call(1, "dear")),
    ({b"mcp-method": b"ping", b"mcp-name": b"search"}, call(1)),
    ({b"mcp-method": b"tools/call"}, PING),
    ({b"mcp-method": b"tools/call"}, NOTE),
    ({b"mcp-method": b"tools/call"}, message(id=1, result={})),
    ({b"mcp-name": b"=?base64?!?="}, call(1)),
    ({b"mcp-name": b"=?base64?="}, call(1)),
    ({b"mcp-name": b"search"}, [call(1), call(2)]),
    ({b"mcp-name": b"search"}, [call(1)]),
    ({b"mcp-name": b""}, call(1)),
]


@pytest.mark.parametrize(("headers", "content"), MATCHES)
def test_headers_that_say_what_the_body_says_pass(headers: dict[bytes, bytes], content: object) -> None:
    check_routing(list(headers.items()), read(content))


@pytest.mark.parametrize(("headers", "content"), MISMATCHES)
def test_no_call_passes_as_another_by_its_headers(headers: dict[bytes, bytes], content: object) -> None:
    with pytest.raises(HeaderMismatch):
        check_routing(list(headers.items()), read(content))


def test_of_a_header_sent_twice_each_must_be_right() -> None:
    """Which of them an upstream goes by is not for us to know."""
    for names in ((b"search", b"dear"), (b"dear", b"search")):
        with pytest.raises(HeaderMismatch):
            check_routing([(b"mcp-name", name) for name in names], read(call(1)))


def test_a_mismatch_has_the_code_of_the_protocol() -> None:
    answer = MCP.error(400, HeaderMismatch().code, "no")
    assert body_of(answer)["error"]["code"] == -32020


@given(bodies, st.binary(max_size=20), st.sampled_from([b"mcp-method", b"mcp-name", b"other"]))
def test_no_header_makes_anything_but_malformed(body: bytes, value: bytes, name: bytes) -> None:
    try:
        ask: Ask = MCP.read(body)
        check_routing([(name, value)], ask)
    except Malformed:
        return
