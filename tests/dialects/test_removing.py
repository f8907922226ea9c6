"""A caller who did not ask for the usage sees the bytes that it would have seen without."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import dialect_named
from proxy.dialects.bodies import ask_usage
from proxy.dialects.meter import Meter
from proxy.dialects.removing import MOST_HELD, Remover

EVENTS = [(b"content-type", b"text/event-stream")]
USAGE = '{"id":"x","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'


def stream(*, asked: bool, end: str = "\n", space: str = "", padding: str = "") -> bytes:
    """A stream of Chat Completions as OpenAI sends it: to who asked for its usage, and to who did not."""
    null = f',{space}"usage":{space}null' if asked else ""
    datas = [f'{{"id":"x","choices":[{{"delta":{{"content":"{text}{padding}"}}}}]{null}}}' for text in "abc"]
    if asked:
        datas.append(USAGE)
    return "".join(f"data: {data}{end}{end}" for data in [*datas, "[DONE]"]).encode()


def through(body: bytes, cuts: list[int]) -> bytes:
    remover = Remover()
    out = b"".join(remover.take(body[a:b]) for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True))
    return out + remover.rest()


@pytest.mark.parametrize("padding", ["", "x" * MOST_HELD])
@pytest.mark.parametrize(("end", "space"), [("\n", ""), ("\r\n", ""), ("\n", " ")])
@given(data=st.data())
def test_what_comes_of_asking_is_taken_out_however_the_stream_is_cut(
    data: st.DataObject, end: str, space: str, padding: str
) -> None:
    told = stream(asked=True, end=end, space=space)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(told)), max_size=12)))
    assert through(told, cuts) == stream(asked=False, end=end, space=space)
    long = told.replace(b"[DONE]", b"[DONE]" + padding.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(long)), max_size=12)))
    assert through(long, cuts) == stream(asked=False, end=end).replace(
        b"[DONE]", b"[DONE]" + padding.encode()
    )


PLAIN = [b"\n", b"\r\n", b"data: ", b"[DONE]", b"{", b"}", b'"choices":[', b"x" * 9, b"usage", b": ping"]


@given(st.lists(st.sampled_from(PLAIN) | st.binary(max_size=8), max_size=30).map(b"".join), st.integers(1, 9))
def test_what_has_nothing_of_it_passes_byte_for_byte(noise: bytes, size: int) -> None:
    noise = noise.replace(b'"usage"', b"")
    assert through(noise, list(range(size, len(noise), size))) == noise


@given(st.integers(0, len(stream(asked=True))), st.integers(1, 60))
def test_a_stream_that_breaks_off_is_passed_on_as_far_as_it_came(cut: int, size: int) -> None:
    told = stream(asked=True)[:cut]
    got = through(told, list(range(size, len(told), size)))
    if told.count(b'"usage":null') == told.count(b'"usage"'):
        lines = told.replace(b',"usage":null}\n', b"}\n")
        assert got == lines, "an unfinished line keeps all that came"
    assert through(told, []) == got


def test_usage_beside_choices_is_left_where_it_is() -> None:
    body = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\ndata: {"choices":[],"x":1}\n\n'
    assert through(body, []) == body


@pytest.mark.parametrize(
    "headers", [[*EVENTS, (b"content-length", b"9")], [*EVENTS, (b"content-encoding", b"gzip")], []]
)
def test_a_length_that_was_told_holds(headers: list[tuple[bytes, bytes]]) -> None:
    meter = Meter(Remover())
    meter.begin(200, headers)
    assert meter.take(stream(asked=True)) == stream(asked=True)
    assert meter.rest() == b""


def test_what_is_taken_out_was_counted() -> None:
    meter = Meter(Remover())
    meter.begin(200, EVENTS)
    told = stream(asked=True)
    out = b"".join(meter.take(told[at : at + 7]) for at in range(0, len(told), 7)) + meter.rest()
    assert out == stream(asked=False)
    assert (meter.input, meter.output, meter.pieces) == (1, 2, 3)


# ── the question ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (
            b' {"stream":true, "x" : 1e0}',
            b' {"stream_options":{"include_usage":true},"stream":true, "x" : 1e0}',
        ),
        (
            b'{"stream":true,"stream_options":null}',
            b'{"stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options":{"include_obfuscation":false, "include_usage":false},"x":1e0}',
            b'{"stream_options":{"include_obfuscation":false,"include_usage":true},"x":1e0}',
        ),
    ],
)
def test_the_question_is_added_and_all_else_keeps_its_bytes(body: bytes, asked: bytes) -> None:
    ask = dialect_named("openai").read(body)
    assert not ask.tells
    assert ask_usage(body, ask) == asked
    assert dialect_named("openai").read(asked).tells


@pytest.mark.parametrize("options", ["7", "[]", '{"include_usage": 1}'])
def test_options_that_are_none_are_left_to_the_upstream(options: str) -> None:
    assert dialect_named("openai").read(f'{{"stream_options": {options}}}'.encode()).tells is True


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(), max_size=5)
)
def test_whatever_the_body_holds_it_holds_afterwards(members: dict[str, object]) -> None:
    members.pop("stream_options", None)
    members["stream"] = True
    for name in ("model", "generationConfig"):
        members.pop(name, None)
    body = json.dumps(members).encode()
    asked = msgspec.json.decode(ask_usage(body, dialect_named("openai").read(body)))
    assert asked.pop("stream_options") == {"include_usage": True}
    assert asked == members


@pytest.mark.parametrize("size", [10_000, MOST_HELD, 3 * MOST_HELD])
def test_an_empty_line_that_belongs_to_another_event_stays(size: int) -> None:
    long = b"data: " + b"x" * 2 * MOST_HELD + b"\n\n"
    body = b"data: " + USAGE.encode() + b"\n" + long + b"data: [DONE]\n\n"
    assert through(body, list(range(size, len(body), size))) == long + b"data: [DONE]\n\n"
