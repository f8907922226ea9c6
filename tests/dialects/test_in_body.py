"""What bodies say of runs and urgency; whatever they hold, nothing is raised."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.in_body import CODEX_TURN, InBody

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "user_id", "params", "_meta", CODEX_TURN, "session_id", "service_tier"]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


def turn(value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "params": {"_meta": {CODEX_TURN: value}}}).encode()


@pytest.mark.parametrize(
    ("dialect", "body", "run", "urgency"),
    [
        ("openai", b'{"prompt_cache_key":" k ","service_tier":"flex"}', b"k", b"flex"),
        ("openai", b'{"prompt_cache_key":7,"service_tier":null}', b"", b""),
        ("openai", b"[]", b"", b""),
        ("openai", b"\xff", b"", b""),
        ("openai", b"[" * 100_000, b"", b""),
        ("anthropic", b'{"metadata":{"user_id":"u1"}}', b"u1", b""),
        ("anthropic", b'{"metadata":{"user_id":"{\\"session_id\\":\\"s\\"}"}}', b"s", b""),
        ("anthropic", b'{"metadata":{"user_id":"{\\"session_id\\":[]}"}}', b"", b""),
        ("anthropic", b'{"metadata":{"user_id":"{no json"}}', b"{no json", b""),
        ("anthropic", b'{"metadata":["user_id"]}', b"", b""),
        ("mcp", turn({"session_id": "s"}), b"s", b""),
        ("mcp", turn(json.dumps({"session_id": "s"})), b"s", b""),
        ("mcp", turn("s"), b"", b""),
        ("mcp", b"[" + turn({}) + b"," + turn({"session_id": "t"}) + b"]", b"t", b""),
        ("mcp", b'{"jsonrpc":"2.0"}', b"", b""),
    ],
)
def test_each_dialects_bodies_say_it_in_their_own_place(dialect, body, run, urgency):
    said = InBody(dialect, 0, urgency=True).read(body)
    assert (said.run, said.urgency) == (run, urgency)


def test_only_what_was_asked_for_is_told():
    body = b'{"prompt_cache_key":"k","service_tier":"flex"}'
    assert InBody("openai", -1, urgency=True).read(body).run == b""
    assert InBody("openai", 3, urgency=False).read(body).urgency == b""


@given(
    st.sampled_from(["openai", "anthropic", "mcp"]),
    st.binary() | JSON.map(lambda each: json.dumps(each).encode()),
)
def test_no_body_makes_it_raise(dialect, body):
    said = InBody(dialect, 0, urgency=True).read(body)
    assert isinstance(said.run, bytes)
    InBody(dialect, 0, urgency=True).read(turn("\ud800") + body)


@given(JSON)
def test_no_value_in_its_place_makes_it_raise(value):
    for dialect, body in [
        ("mcp", turn(value)),
        ("anthropic", json.dumps({"metadata": {"user_id": value}}).encode()),
        ("anthropic", json.dumps({"metadata": {"user_id": json.dumps(value)}}).encode()),
        ("openai", json.dumps({"prompt_cache_key": value, "service_tier": value}).encode()),
    ]:
        assert isinstance(InBody(dialect, 0, urgency=True).read(body).run, bytes)
