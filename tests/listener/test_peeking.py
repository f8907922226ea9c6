"""Which bodies are read for the tokens of their call: the short ones, and of the long ones the streams'."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from proxy.peeking import MOST_BLANKS, PEEKED_BYTES, asks_for_stream, is_json, tells_cost
from proxy.wire import SMALL_BYTES, Connection, Wire

JSON = {b"content-type": b"application/json"}
LONG = "x" * PEEKED_BYTES
TOOLS = [{"name": "watch", "input_schema": {"properties": {"stream": {"type": "string"}}}}]


def arrived(body: bytes, *, whole: bool = True) -> Wire:
    wire = Wire(cast("Connection", None))
    wire.has_body, wire.length, wire.body_arrived = True, len(body), whole
    wire.arrive(memoryview(body))
    return wire


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "m"} | members).encode()


@pytest.mark.parametrize(
    ("part", "asks"),
    [
        (b'{"stream":true}', True),
        (b'{"stream" : true}', True),
        (b'{"stream"' + b" " * (MOST_BLANKS - 5) + b":true}", True),
        (b'{"stream":false}', False),
        (b'{"stream":null,"n":true}', False),
        (b'{"stream_options":{"include_usage":true}}', False),
        (b'{"content":"\\"stream\\": true"}', False),
        (b'{"stream"', False),
        (b"", False),
    ],
)
def test_a_part_of_a_body_asks_for_a_stream(part: bytes, asks: bool) -> None:
    assert asks_for_stream(part) is asks


def test_a_member_of_a_tool_with_that_name_hides_nothing() -> None:
    assert asks_for_stream(chat(stream=True, tools=TOOLS))
    assert asks_for_stream(chat(tools=TOOLS, stream=True))
    assert not asks_for_stream(chat(tools=TOOLS))


@pytest.mark.parametrize(
    ("body", "tells"),
    [
        (chat(), True),
        (chat(messages=LONG), False),
        (chat(messages=LONG, stream=False), False),
        (chat(messages=LONG, stream=True), True),
        (chat(stream=True, messages=LONG), True),
        (chat(messages=LONG * (SMALL_BYTES // PEEKED_BYTES), stream=True), False),
    ],
)
def test_a_long_body_is_read_only_where_it_asks_for_a_stream(body: bytes, tells: bool) -> None:
    wire = arrived(body)
    assert tells_cost(wire, JSON) is tells
    assert wire.body is None, "it was copied only to be looked at"


def test_a_long_body_is_not_awaited() -> None:
    assert not tells_cost(arrived(chat(messages=LONG, stream=True), whole=False), JSON)


@pytest.mark.parametrize(
    "content_type", [b"", b"application/json", b"Application/JSON; charset=utf-8", b"text/json"]
)
def test_what_may_be_json(content_type: bytes) -> None:
    assert is_json(content_type)


def test_what_is_no_json_is_not_read() -> None:
    assert not tells_cost(arrived(chat()), {b"content-type": b"multipart/form-data"})
