"""What `docs/dialects.md` promises of every dialect: a new one is held to it by its registration alone."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.verdict import Kind, Reason, Refusal, kind_of
from proxy.dialects import DIALECTS, Ask, Dialect, Malformed
from proxy.dialects.refusal import Facts
from tests.dialects.chance import steady
from tests.dialects.refusals import FINAL, HOSTILE, STOPS, header
from tests.dialects.refusals import example as told
from tests.dialects.test_hostile_bodies import DEEP, HUGE, bodies
from tests.dialects.test_refusal import SCANNED

every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
every_reason = pytest.mark.parametrize("reason", list(Reason))

ASKS = [None, Ask(), Ask(model="m", stream=True), Ask(method="tools/call", tool="t", ids=(1,))]

paths = st.binary(max_size=60) | st.lists(
    st.sampled_from(
        [b"v1", b"models", b"m:generateContent", b"%3A", b"..", b".", b"", b"completions", b"\xff", b":"]
    ),
    max_size=6,
).map(lambda parts: b"/" + b"/".join(parts))


def texts_in(value: Any) -> list[str]:
    """Every text of a JSON document that is not a name."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts_in(each)]
    return [value] if isinstance(value, str) else []


def with_examples(test: object) -> object:
    for body in DEEP + HUGE:
        test = example(body)(test)  # type: ignore[assignment]
    return test


@every_reason
@every_dialect
def test_every_refusal_is_well_formed(dialect: Dialect, reason: Reason) -> None:
    for ask in ASKS:
        answer = dialect.refuse(told(reason), ask)
        assert 200 <= answer.status <= 599
        assert all(re.fullmatch(rb"[a-z-]+", name) for name, _ in answer.headers)
        assert "content-length" not in dict(answer.headers)
        assert header(answer, "x-backpressure-reason") == reason
        if not answer.body:
            assert (answer.status, header(answer, "content-type")) == (202, None)
            continue
        assert isinstance(msgspec.json.decode(answer.body), dict)
        assert header(answer, "content-type") in {"application/json", "application/problem+json"}


@pytest.mark.parametrize("wait_s", [0.0004, 0.2, 1.0, 2.9999, 12.345, 54.9996, 55.0, 1e9])
@every_dialect
def test_retry_after_is_the_milliseconds_rounded_up(dialect: Dialect, wait_s: float) -> None:
    for reason in set(Reason) - set(STOPS):
        answer = dialect.refuse(Refusal(reason, "route:r", wait_s), ASKS[-1])
        told_s, told_ms = header(answer, "retry-after"), header(answer, "retry-after-ms")
        assert told_s is not None
        assert told_ms is not None
        assert int(told_s) == math.ceil(int(told_ms) / 1000)
        assert 1 <= int(told_s) <= 55


@every_reason
@every_dialect
def test_the_words_and_the_advice_of_the_reason_are_told(dialect: Dialect, reason: Reason) -> None:
    body = msgspec.json.decode(dialect.refuse(told(reason), ASKS[-1]).body)
    said = max(texts_in(body), key=len)
    assert said.count(". ") >= 1, "a fact and an advice"
    assert ("13s" in said or "13 seconds" in said or "12.345s" in said) is (reason not in FINAL)


@pytest.mark.parametrize("scope", HOSTILE)
@pytest.mark.parametrize("reason", FINAL)
@every_dialect
def test_no_text_of_a_final_body_makes_a_client_retry(dialect: Dialect, reason: Reason, scope: str) -> None:
    answer = dialect.refuse(Refusal(reason, scope, 30.5, limit=scope), None)
    body = msgspec.json.decode(answer.body)
    if dialect.name == "mcp":  # nobody scans the data of a JSON-RPC error: it is full of digits as it is
        body = body["error"]["message"]
    # The version of a protocol is no text of ours, and a code is a number.
    assert [text for text in texts_in(body) if SCANNED.search(text) and text != "2.0"] == []


@pytest.mark.parametrize("status", [400, 404, 413, 431, 499, 501, 502, 503, 504])
@every_dialect
def test_any_other_error_is_an_answer_of_its_status_with_the_message(dialect: Dialect, status: int) -> None:
    answer = dialect.error(status, "some_code", "What is wrong.")
    assert answer.status == status
    texts = texts_in(msgspec.json.decode(answer.body))
    assert "What is wrong." in texts


@every_reason
@every_dialect
def test_a_cut_is_one_event_of_its_own_or_none(dialect: Dialect, reason: Reason) -> None:
    for ask in ASKS:
        event = dialect.cut(told(reason), ask)
        if event is None:
            continue
        assert event.startswith(b"\n\n"), "it ends what the upstream left unfinished"
        assert event.endswith(b"\n\n")
        (data,) = [line for line in event.split(b"\n") if line.startswith(b"data: ")]
        assert Facts(told(reason)).reason in event.decode().lower()
        assert isinstance(msgspec.json.decode(data[6:]), dict)


@every_dialect
@with_examples
@steady
@given(bodies)
def test_reading_raises_nothing_but_malformed(dialect: Dialect, body: bytes) -> None:
    for act in (lambda: dialect.read(body), lambda: dialect.with_model(PLACE, body, "other")):
        with suppress(Malformed):
            act()


PLACE = b"/v1beta/models/m:batchEmbedContents"


@every_dialect
@steady
@given(paths)
def test_any_path_can_be_asked_about(dialect: Dialect, path: bytes) -> None:
    assert type(dialect.costs_tokens(path)) is bool
    assert type(dialect.answers_no_text(path)) is bool
    assert type(dialect.streams(path)) is bool
    assert type(dialect.model_in_body(path)) is bool
    model = dialect.model_in(path)
    model.encode()  # nothing that cannot be written
    if not dialect.model_in_body(path):
        renamed, body = dialect.with_model(path, None, "other")
        assert (dialect.model_in(renamed).rpartition("/")[2], body) == ("other", None)


@every_dialect
def test_what_the_settings_ask_of_a_dialect_is_said(dialect: Dialect) -> None:
    assert dialect.tools_in in {"", "path", "body"}
    assert re.fullmatch(r"[a-z]+", dialect.name)
    assert not dialect.is_session(b"POST"), "its body says so"


def test_kinds_without_a_place_to_return_to_are_all_in_the_list() -> None:
    assert set(FINAL) == {reason for reason in Reason if kind_of(reason) in {Kind.STOP, Kind.NOT_AGAIN}}
