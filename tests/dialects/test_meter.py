"""What an answer tells of its tokens, however it is cut into pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.meter import END_BYTES, MOST_BYTES, Meter
from proxy.dialects.usage import MOST_TOKENS

Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json; charset=UTF-8")]
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]

CHAT = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 30}}
DONE = {"type": "response.completed", "response": {"usage": {"input_tokens": 6, "output_tokens": 3}}}
GEMINI = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}


def read(body: bytes, headers: Headers = JSON, cuts: Sequence[int] = (), status: int = 200) -> Meter:
    meter = Meter()
    meter.begin(status, headers)
    for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        assert meter.take(body[begin:end]) == body[begin:end]
        assert sum(map(len, meter._held)) <= MOST_BYTES
    meter.close()
    return meter


def said(meter: Meter) -> tuple[int | None, int | None]:
    return meter.input, meter.output


def all_of(meter: Meter) -> tuple[object, ...]:
    names = ("input", "output", "cached", "written", "apart", "pieces", "bytes", "status")
    return tuple(getattr(meter, name) for name in names)


def events(*datas: object, end: str = "\n") -> bytes:
    return "".join(f"data: {json.dumps(data)}{end}{end}" for data in datas).encode()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"choices": [], "usage": CHAT}, (10, 5)),
        ({"output": [], "usage": {"input_tokens": 7, "output_tokens": 4, "total_tokens": 11}}, (7, 4)),
        ({"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, (8, None)),
        ({"candidates": [], "usageMetadata": GEMINI, "modelVersion": "m"}, (9, 4)),
        ({"usageMetadata": {"promptTokenCount": 9, "thoughtsTokenCount": 70}}, (9, 70)),
        ({"usageMetadata": GEMINI | {"thoughtsTokenCount": 70, "toolUsePromptTokenCount": 5}}, (14, 74)),
        ({"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 20}}, (9, 11)),
        ({"usageMetadata": {}}, (None, None)),
        ({"content": [{"type": "tool_use", "input": {"usage": CHAT}}]}, (None, None)),
        ({"usage": None}, (None, None)),
        ({"usage": {"prompt_tokens": "10"}}, (None, None)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 10**18}}, (None, None)),
        (
            {"usage": {"prompt_tokens": MOST_TOKENS, "completion_tokens": MOST_TOKENS + 1}},
            (MOST_TOKENS, None),
        ),
        ([], (None, None)),
        ([{"usageMetadata": GEMINI}, {"usageMetadata": GEMINI | {"candidatesTokenCount": 6}}], (9, 6)),
        ([{"usageMetadata": GEMINI}, {"candidates": []}], (9, 4)),
    ],
)
def test_a_plain_answer_tells_its_usage(body: object, told: tuple[int | None, int | None]) -> None:
    assert said(read(json.dumps(body).encode())) == told
    assert said(read(json.dumps(body, indent=1).encode())) == told


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        # input, output, cached, written, apart
        (CHAT | {"prompt_tokens_details": {"cached_tokens": 9}}, (1, 5, 9, None, False)),
        (CHAT | {"prompt_tokens_details": {"cached_tokens": 99}}, (0, 5, 10, None, False)),
        (CHAT | {"prompt_tokens_details": None}, (10, 5, None, None, False)),
        (
            {"input_tokens": 8, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}},
            (5, 2, 3, None, False),
        ),
        (
            {
                "input_tokens": 3,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 5000,
                "output_tokens": 2,
            },
            (103, 2, 5000, 100, True),
        ),
    ],
)
def test_cached_tokens_are_told_apart_as_each_provider_counts_them(
    usage: object, told: tuple[object, ...]
) -> None:
    assert all_of(read(json.dumps({"usage": usage}).encode()))[:5] == told


def test_those_of_gemini_are_among_the_prompts() -> None:
    body = json.dumps({"usageMetadata": GEMINI | {"cachedContentTokenCount": 7}}).encode()
    assert all_of(read(body))[:5] == (2, 4, 7, None, False)


@pytest.mark.parametrize(
    ("datas", "told"),
    [
        ([{"choices": [1], "usage": None}, {"choices": [], "usage": CHAT}], (10, 5)),
        ([{"choices": [1]}, {"choices": []}], (None, None)),
        ([START, {"type": "ping"}, DELTA], (12, 30)),
        ([START], (12, 1)),
        ([START, DELTA, {"usage": {"input_tokens": 14}}], (14, 30)),
        ([START, DELTA, DELTA | {"usage": {"input_tokens": 20, "output_tokens": 31}}], (20, 31)),
        ([{"type": "response.created", "response": {"usage": None}}, DONE], (6, 3)),
        ([DONE | {"type": "response.incomplete"}], (6, 3)),
        ([DONE | {"type": "response.failed"}], (6, 3)),
        ([{"usageMetadata": {"promptTokenCount": 9}}, {"usageMetadata": GEMINI}], (9, 4)),
        ([{"delta": 'said "usage": {"prompt_tokens": 9}'}], (None, None)),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stream_tells_its_usage_event_by_event(datas: list[object], told: object, end: str) -> None:
    assert said(read(events(*datas, end=end) + b"data: [DONE]\n\n", EVENTS)) == told


def test_a_streamed_array_that_is_cut_tells_what_came_last() -> None:
    detail = {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}]}
    parts = [{"text": "}]", "usageMetadata": GEMINI | detail | {"candidatesTokenCount": at}} for at in (1, 2)]
    whole = json.dumps(parts, indent=1).encode()
    assert said(read(whole)) == (9, 2)
    assert said(read(whole[:-2])) == (9, 2)
    assert said(read(whole[: whole.rindex(b'"tokenCount"')])) == (None, None), "the last is not whole"
    assert said(read(whole[: whole.rindex(b'"usageMetadata"')])) == (9, 1)


# ── what was delivered ──────────────────────────────────────────────────────────────────────────────


def chunk(delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta}]}


@pytest.mark.parametrize(
    ("datas", "pieces"),
    [
        ([chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk({"content": "b"})], 2),
        ([chunk({"role": "assistant", "content": "a"}), chunk({"content": ""})], 2),
        ([chunk({"tool_calls": [{"function": {"arguments": '{"delta": 1}'}}]})], 1),
        ([START, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, DELTA], 1),
        ([{"type": "response.output_text.delta", "delta": "a"}, DONE], 1),
        ([{"type": "ping"}], 0),
    ],
)
def test_the_events_that_carry_something_are_counted(datas: list[object], pieces: int) -> None:
    body = "".join(f"data: {json.dumps(data, separators=(',', ':'))}\n\n" for data in datas).encode()
    assert read(body, EVENTS).pieces == pieces


# ── however it is cut, whatever it is ───────────────────────────────────────────────────────────────

LONG = "x" * MOST_BYTES
STREAMS = [
    events(START, {"delta": "x" * 50}, DELTA, {"usage": None}) + b": comment\n\n",
    events(chunk({"content": ""}), chunk({"content": "a"}), {"choices": [], "usage": CHAT}, end="\r\n"),
    events(START, {"delta": LONG, "usage": {"output_tokens": 77}}, chunk({"content": "a"})),
    events({"response": {"output": LONG, "usage": {"input_tokens": 6, "output_tokens": 3}, "user": None}}),
]
ANSWERS = [
    json.dumps({"choices": [], "usage": CHAT}).encode(),
    json.dumps({"choices": LONG, "usage": CHAT, "service_tier": "default"}).encode(),
    json.dumps([{"text": LONG, "usageMetadata": GEMINI}]).encode(),
]


@given(st.data(), st.sampled_from(STREAMS))
def test_a_stream_tells_the_same_however_it_is_cut(data: st.DataObject, whole: bytes) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    assert all_of(read(whole, EVENTS, cuts)) == all_of(read(whole, EVENTS))


@given(st.data(), st.sampled_from(ANSWERS))
def test_an_answer_tells_the_same_however_it_is_cut(data: st.DataObject, whole: bytes) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    assert all_of(read(whole, JSON, cuts)) == all_of(read(whole))


MARKS = [
    b"\n",
    b"\r\n",
    b"data:",
    b'"usage',
    b'"usage"',
    b'"usageMetadata":',
    b'"delta":',
    b"{",
    b"}",
    b"[",
    b"]",
]
MARKS += [b'{"usage":{"prompt_tokens":3}}', b'"content":""', b'"usage":null', b"\xff", b"9" * 30, b"[" * 2000]


@given(
    st.lists(st.sampled_from(MARKS) | st.binary(max_size=8), max_size=40).map(b"".join),
    st.sampled_from([JSON, EVENTS]),
    st.integers(1, 50),
)
def test_nothing_makes_it_raise_and_noise_is_the_same_in_any_pieces(
    noise: bytes, headers: Headers, size: int
) -> None:
    whole = read(noise, headers)
    assert all_of(read(noise, headers, list(range(size, len(noise), size)))) == all_of(whole)


def test_of_what_is_too_long_the_end_is_read() -> None:
    assert said(read(json.dumps({"data": LONG, "usage": {"prompt_tokens": 4}}).encode())) == (4, None)
    assert said(read(STREAMS[3], EVENTS)) == (6, 3)
    hidden = json.dumps({"usage": CHAT, "data": "x" * (MOST_BYTES + END_BYTES)}).encode()
    assert said(read(hidden)) == (None, None)


def test_an_end_full_of_braces_is_given_up_on() -> None:
    assert said(read(b'[{"usageMetadata":' + b"}" * MOST_BYTES)) == (None, None)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [*JSON, (b"content-encoding", b"gzip")],
        [(b"content-encoding", b"br"), *JSON],
    ],
)
def test_what_cannot_be_read_tells_nothing(headers: Headers) -> None:
    meter = read(json.dumps({"usage": CHAT}).encode(), headers)
    assert said(meter) == (None, None)
    assert meter.bytes
