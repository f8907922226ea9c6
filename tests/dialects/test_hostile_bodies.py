"""No bytes from outside make a dialect raise anything but Malformed, or say anything of what it read."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.verdict import Reason, Refusal
from proxy.dialects import DIALECTS, Ask, Malformed, digest
from tests.dialects.chance import steady

NAMED = (
    "model",
    "stream",
    "stream_options",
    "jsonrpc",
    "id",
    "method",
    "params",
    "name",
    "_meta",
    "result",
    "error",
)

texts = st.text(st.characters(codec=None), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | texts
    | st.integers()
    | st.floats()
    | st.sampled_from([2**64, -(10**40), 10**400])
)
keys = st.sampled_from(NAMED) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=12,
)
requests = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers() | texts | scalars,
        "method": st.sampled_from(["tools/call", "tools/list", "notifications/x"]) | values,
        "params": st.dictionaries(st.just("name"), texts | values, max_size=1) | values,
        "result": values,
    },
)
documents = values | st.dictionaries(keys, values) | requests | st.lists(requests | values, max_size=4)
prefixes = st.sampled_from([b"", b"\xef\xbb\xbf", b" ", b'{"model":"a","model":', b'{"model":"a","x":'])
bodies = st.binary() | st.builds(
    lambda prefix, document, ascii_only, cut: (
        prefix + json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    )[: cut or None],
    prefixes,
    documents,
    st.booleans(),
    st.integers(-3, 0),
)

DEEP = [
    opening * 20_000 + b"1" + closing * 20_000
    for opening, closing in [
        (b"[", b"]"),
        (b'{"model":', b"}"),
        (b'{"params":', b"}"),
        (b'[{"jsonrpc":', b"}]"),
    ]
]
HUGE = [
    b'{"model":' + b"9" * 10_000 + b"}",
    b'{"jsonrpc":"2.0","method":"m","id":' + b"9" * 5_000 + b"}",
    b"1e999",
]


def with_examples(test: object) -> object:
    for body in DEEP + HUGE:
        test = example(body)(test)  # type: ignore[assignment]
    return test


def read(name: str, body: bytes) -> Ask | Malformed:
    try:
        return DIALECTS[name].read(body)
    except Malformed as malformed:
        return malformed


@pytest.mark.parametrize("name", DIALECTS)
@with_examples
@steady
@given(bodies)
def test_reading_finds_an_ask_or_raises_malformed(name: str, body: bytes) -> None:
    ask = read(name, body)
    if isinstance(ask, Malformed):
        assert len(str(ask)) < 200
        return
    assert (type(ask.model), type(ask.tool), type(ask.method)) == (str, str, str)
    assert (type(ask.stream), type(ask.exempt), type(ask.batch)) == (bool, bool, bool)
    assert all(type(request_id) in {int, str} for request_id in ask.ids)


@with_examples
@steady
@given(bodies)
def test_every_mcp_request_that_was_read_can_be_refused(body: bytes) -> None:
    ask = read("mcp", body)
    if isinstance(ask, Ask):
        answer = DIALECTS["mcp"].refuse(Refusal(Reason.SHED, "route:tools", 2.0), ask)
        assert answer.status == (200 if ask.ids else 202)


@pytest.mark.parametrize("name", DIALECTS)
@with_examples
@steady
@given(bodies)
def test_another_model_is_put_in_or_the_body_is_malformed(name: str, body: bytes) -> None:
    try:
        _, changed = DIALECTS[name].with_model(b"/v1/x", body, "other")
    except Malformed:
        return
    assert changed is not None
    assert DIALECTS[name].read(changed).model == "other"


@with_examples
@steady
@given(bodies)
def test_every_body_has_a_fingerprint(body: bytes) -> None:
    assert len(digest(body)) == 32


@steady
@given(st.text("zq", min_size=6), values)
def test_malformed_repeats_nothing_of_the_body(secret: str, value: object) -> None:
    document = {"model": [secret, value], "stream": secret, "id": {secret: value}, "method": [secret]}
    for name in DIALECTS:
        assert secret not in str(read(name, json.dumps(document).encode()))
