"""What a call costs: the estimate, and what its answer tells, however the answer is cut into pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.tokens import (
    DEFAULT_OUTPUT,
    MOST_BYTES,
    UNKNOWN_INPUT,
    Meter,
    estimate,
)

JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


def told(body: bytes, *, status: int = 200, headers: list[tuple[bytes, bytes]] = JSON) -> float | None:
    meter = Meter()
    meter.begin(status, headers)
    meter.take(body)
    return meter.used()


def events(*datas: object, end: str = "\n") -> bytes:
    return "".join(f"data: {json.dumps(data)}{end}{end}" for data in datas).encode()


# ── the estimate ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b"{}", DEFAULT_OUTPUT),
        (b'{"max_tokens": 7}', 7),
        (b'{"max_completion_tokens": 8}', 8),
        (b'{"max_output_tokens": 9}', 9),
        (b'{"max_tokens": 7, "n": 3}', 21),
        (b'{"max_tokens": null, "n": 2}', 2 * DEFAULT_OUTPUT),
        (b'{"max_tokens": -5, "n": 0}', 0),
        (b'{"max_tokens": "many"}', DEFAULT_OUTPUT),
        (b'{"max_tokens": 7', DEFAULT_OUTPUT),
        (b'{"max_tokens": 1e400}', DEFAULT_OUTPUT),
        (b'["max_tokens", "n"]', DEFAULT_OUTPUT),
    ],
)
def test_the_output_is_what_the_body_allows_else_that_of_a_usual_answer(body: bytes, output: int) -> None:
    assert estimate(len(body), body, input_only=False) == max(1, len(body) // 4 + output)


def test_four_bytes_are_a_token_and_a_body_that_is_not_here_goes_by_its_declared_length() -> None:
    assert estimate(4000, None, input_only=False) == 1000 + DEFAULT_OUTPUT
    assert estimate(None, None, input_only=False) == UNKNOWN_INPUT + DEFAULT_OUTPUT
    assert estimate(4000, None, input_only=True) == 1000
    assert estimate(0, b"", input_only=True) == 1


# ── what the answer tells ───────────────────────────────────────────────────────────────────────────

CHAT_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}}
DELTA = {"type": "message_delta", "usage": {"output_tokens": 30}}


@pytest.mark.parametrize(
    ("body", "used"),
    [
        ({"choices": [], "usage": CHAT_USAGE}, 15),
        ({"output": [], "usage": {"input_tokens": 7, "output_tokens": 4, "total_tokens": 11}}, 11),
        ({"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, 8),
        ({"usage": CHAT_USAGE | {"prompt_tokens_details": {"cached_tokens": 9}}}, 15),
        (
            {
                "usage": {
                    "input_tokens": 3,
                    "cache_creation_input_tokens": 100,
                    "cache_read_input_tokens": 5000,
                    "output_tokens": 2,
                }
            },
            105,
        ),
        ({"content": [{"type": "tool_use", "input": {"usage": CHAT_USAGE}}]}, None),
        ({"usage": None}, None),
        ({"usage": {"prompt_tokens": "10"}}, None),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 10**18}}, None),
        ([], None),
    ],
)
def test_a_plain_answer_tells_its_usage(body: object, used: float | None) -> None:
    assert told(json.dumps(body).encode()) == used


@pytest.mark.parametrize(
    ("datas", "used"),
    [
        ([{"choices": [1], "usage": None}, {"choices": [], "usage": CHAT_USAGE}], 15),
        ([{"choices": [1]}, {"choices": []}], None),
        ([START, {"type": "ping"}, DELTA], 42),
        ([START, DELTA, {"usage": {"input_tokens": 14}}], 44),
        ([START, DELTA, DELTA | {"usage": {"input_tokens": 20, "output_tokens": 31}}], 51),
        (
            [
                {"type": "response.created", "response": {"usage": None}},
                {
                    "type": "response.completed",
                    "response": {"usage": {"input_tokens": 6, "output_tokens": 3}},
                },
            ],
            9,
        ),
        ([{"delta": 'said "usage": {"prompt_tokens": 9}'}], None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stream_tells_its_usage_event_by_event(datas: list[object], used: float | None, end: str) -> None:
    assert told(events(*datas, end=end) + b"data: [DONE]\n\n", headers=EVENTS) == used


@given(st.data())
def test_a_stream_tells_the_same_however_it_is_cut(data: st.DataObject) -> None:
    whole = events(START, {"text": "x" * 50}, DELTA, {"usage": None}) + b": comment\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    meter = Meter()
    meter.begin(200, EVENTS)
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        meter.take(whole[begin:end])
    assert meter.used() == 42


@given(st.binary(max_size=400), st.sampled_from([JSON, EVENTS]), st.integers(1, 50))
def test_no_answer_makes_it_raise(noise: bytes, headers: list[tuple[bytes, bytes]], size: int) -> None:
    body = b'data: {"usage": {' + noise + b'}}\n\ndata:{"usage":' + noise
    meter = Meter()
    meter.begin(200, headers)
    for at in range(0, len(body), size):
        meter.take(body[at : at + size])
    meter.used()


def test_what_is_too_long_is_let_go_and_what_follows_is_read() -> None:
    filler = b"x" * MOST_BYTES
    assert told(b'{"a": "' + filler + b'", "usage": {"prompt_tokens": 1}}') is None
    meter = Meter()
    meter.begin(200, EVENTS)
    for piece in (b'data: {"a": "', filler, filler, b'data: {"usage": {"prompt_tokens": 1}}\n\n'):
        meter.take(piece)
        assert sum(map(len, meter._held)) <= MOST_BYTES
    assert meter.used() is None
    meter.take(events(START))
    assert meter.used() == 13


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [*JSON, (b"content-encoding", b"gzip")],
        [(b"content-encoding", b"br"), *JSON],
    ],
)
def test_what_cannot_be_read_tells_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    assert told(json.dumps({"usage": CHAT_USAGE}).encode(), headers=headers) is None


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_has_used_nothing_unless_it_says_so(status: int) -> None:
    assert told(b'{"error": {"message": "no"}}', status=status) == 0.0
    assert told(b"no", status=status, headers=[]) == 0.0
    assert told(json.dumps({"usage": CHAT_USAGE}).encode(), status=status) == 15
