"""What a refusal must say whatever the dialect: status, headers, wait, and words no client stumbles over."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.run_budgets import BUDGETS
from proxy.core.verdict import Kind, Reason, Refusal, kind_of, status_of
from proxy.dialects import DIALECTS, Ask, Dialect, dialect_named
from proxy.dialects.run_words import RUN_WORDS
from proxy.dialects.words import WORDS
from tests.dialects.chance import steady
from tests.dialects.refusals import FINAL, HOSTILE, STOPS, UNBOOKED, example, header, unbooked

BY_STATUS = ["openai", "anthropic", "gemini", "rest"]
TOOL_CALL = Ask(method="tools/call", tool="get_503_page", ids=(7,))

SCANNED = re.compile(
    r"\d|rate limit|too many requests|overloaded|try again (later|in)|server error|timeout|context length"
    r"|prompt is too long",
    re.IGNORECASE,
)
"""What makes clients repeat a final answer (reference/clients.md, finding 4 and R4), or any digit at all."""

every_reason = pytest.mark.parametrize("reason", list(Reason))
every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())


@every_reason
@pytest.mark.parametrize("name", BY_STATUS)
def test_the_status_is_the_one_of_the_contract(name: str, reason: Reason) -> None:
    assert dialect_named(name).refuse(example(reason), None).status == status_of(reason)


@pytest.mark.parametrize("reason", STOPS)
@pytest.mark.parametrize("name", BY_STATUS)
def test_the_status_of_a_stop_is_the_operators_choice(name: str, reason: Reason) -> None:
    answer = dialect_named(name).refuse(example(reason), None, stop_status=429)
    assert answer.status == 429
    assert (header(answer, "x-should-retry"), header(answer, "retry-after")) == ("false", None)


@every_reason
@pytest.mark.parametrize("name", DIALECTS)
def test_headers_follow_the_kind(name: str, reason: Reason) -> None:
    answer = dialect_named(name).refuse(example(reason), TOOL_CALL)
    wait = (None, None) if kind_of(reason) is Kind.STOP else ("13", "12345")
    should_retry = {
        Kind.COME_BACK: "true",
        Kind.UNAVAILABLE: None,
        Kind.UPSTREAM: "true",
        Kind.NOT_AGAIN: "false",
        Kind.STOP: "false",
    }
    assert (header(answer, "retry-after"), header(answer, "retry-after-ms")) == wait
    assert header(answer, "x-should-retry") == should_retry[kind_of(reason)]
    assert header(answer, "x-backpressure-reason") == reason
    assert header(answer, "x-backpressure-scope") == "caller:3fa9c1"
    assert header(answer, "x-backpressure-limit") == "1 requests/3s"


@every_reason
def test_a_wait_the_gate_cannot_tell_is_told_only_where_the_kind_needs_one(reason: Reason) -> None:
    answer = dialect_named("openai").refuse(Refusal(reason, "route:chat"), None)
    needs_one = kind_of(reason) in {Kind.COME_BACK, Kind.UNAVAILABLE, Kind.NOT_AGAIN}
    assert (header(answer, "retry-after") is not None) is needs_one
    assert (header(answer, "retry-after-ms") is not None) is needs_one
    assert header(answer, "x-backpressure-limit") is None
    if kind_of(reason) is Kind.UPSTREAM:
        assert header(answer, "x-should-retry") == "false"


@pytest.mark.parametrize("reason", STOPS)
@pytest.mark.parametrize("name", DIALECTS)
def test_a_stop_tells_no_wait_even_where_the_gate_knows_one(name: str, reason: Reason) -> None:
    answer = dialect_named(name).refuse(Refusal(reason, "run:a", 12.0), TOOL_CALL)
    assert (header(answer, "retry-after"), header(answer, "retry-after-ms")) == (None, None)
    assert b"12000" not in answer.body


@steady
@given(st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 60))
def test_retry_after_is_whole_within_bounds_and_never_before_the_time(wait_s: float) -> None:
    answer = dialect_named("openai").refuse(Refusal(Reason.BUCKET_EMPTY, "caller:a", wait_s), None)
    told_s, told_ms = header(answer, "retry-after"), header(answer, "retry-after-ms")
    assert told_s is not None
    assert told_ms is not None
    assert 1 <= int(told_s) <= 55
    assert int(told_s) == math.ceil(int(told_ms) / 1000)
    if 0 <= wait_s <= 55:
        early_s = wait_s - int(told_ms) / 1000
        assert early_s < 1e-6, "the buckets forgive a microsecond, not more"


@pytest.mark.parametrize(("wait_s", "told"), [(3.0, "3"), (3.0000000004, "3"), (3.0001, "4"), (1e-12, "1")])
def test_float_noise_costs_the_caller_no_second(wait_s: float, told: str) -> None:
    answer = dialect_named("rest").refuse(Refusal(Reason.BUCKET_EMPTY, "caller:a", wait_s), None)
    assert header(answer, "retry-after") == told


@pytest.mark.parametrize("reason", UNBOOKED)
@pytest.mark.parametrize("name", DIALECTS)
def test_where_no_place_is_kept_a_client_is_told_not_to_return_by_itself(name: str, reason: Reason) -> None:
    answer = dialect_named(name).refuse(unbooked(reason), TOOL_CALL)
    assert header(answer, "x-should-retry") == "false"
    assert (header(answer, "retry-after"), header(answer, "retry-after-ms")) == ("48", "47500")
    assert b"lease try again" not in answer.body
    if name in BY_STATUS:
        assert answer.status == status_of(reason)


@pytest.mark.parametrize("scope", HOSTILE)
@every_dialect
def test_names_cannot_break_out_of_a_header_or_a_body(dialect: Dialect, scope: str) -> None:
    answer = dialect.refuse(Refusal(Reason.BUCKET_EMPTY, scope, 2.0, limit=scope), TOOL_CALL)
    for name, value in answer.headers:
        assert re.fullmatch(rb"[a-z-]+", name)
        assert re.fullmatch(rb"[\x20-\x7e]{0,256}", value)
    assert isinstance(msgspec.json.decode(answer.body), dict)


@steady
@given(st.text(st.characters(codec=None)))
def test_any_name_gives_a_header_of_visible_ascii(scope: str) -> None:
    answer = dialect_named("openai").refuse(Refusal(Reason.SHED, scope, 2.0), None)
    value = header(answer, "x-backpressure-scope")
    assert value is not None
    assert re.fullmatch(r"[\x20-\x7e]{0,256}", value)


def test_different_names_stay_different_when_they_are_made_safe() -> None:
    dialect = dialect_named("rest")
    scopes = {
        header(dialect.refuse(Refusal(Reason.SHED, f"caller:{name}", 2.0), None), "x-backpressure-scope")
        for name in ("équipe", "日本", "中国")
    }
    assert scopes == {"caller:%C3%A9quipe", "caller:%E6%97%A5%E6%9C%AC", "caller:%E4%B8%AD%E5%9B%BD"}


@pytest.mark.parametrize("scope", HOSTILE)
@pytest.mark.parametrize("reason", FINAL)
@pytest.mark.parametrize("name", BY_STATUS)
def test_a_final_body_holds_nothing_that_clients_take_for_a_reason_to_retry(
    name: str, reason: Reason, scope: str
) -> None:
    answer = dialect_named(name).refuse(Refusal(reason, scope, 30.5, limit=scope), None)
    body = answer.body.decode()
    if name == "gemini":  # whose clients need it
        body = body.replace(f'"code":{answer.status},', "", 1)
    assert SCANNED.findall(body) == []


@pytest.mark.parametrize("scope", HOSTILE)
@pytest.mark.parametrize("reason", FINAL)
@pytest.mark.parametrize("refuse_as", ["result", "error", "http"])
def test_a_final_mcp_text_holds_nothing_of_the_kind_either(
    reason: Reason, scope: str, refuse_as: str
) -> None:
    ask = Ask(method="tools/call", tool=scope, ids=(1,))
    answer = dialect_named("mcp").refuse(Refusal(reason, scope, 30.5, scope), ask, refuse_as=refuse_as)
    reply = msgspec.json.decode(answer.body)
    text = reply["result"]["content"][0]["text"] if refuse_as == "result" else reply["error"]["message"]
    assert SCANNED.findall(text) == []


@every_reason
def test_only_the_told_wait_puts_digits_or_scanned_words_into_a_text(reason: Reason) -> None:
    assert SCANNED.findall(" ".join(WORDS[reason])) == []


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_spent_run_is_told_which_budget_in_words_that_nobody_scans_for(name: str, budget: str) -> None:
    words = RUN_WORDS[budget]
    assert SCANNED.findall(" ".join(words)) == []
    refusal = Refusal(Reason.RUN_BUDGET_SPENT, "run:ann/3fa9c1", limit="50 calls", budget=budget)
    answer = dialect_named(name).refuse(refusal, TOOL_CALL)
    assert words.fact.encode() in answer.body
    assert header(answer, "x-should-retry") == "false"
    assert header(answer, "retry-after") is None


@pytest.mark.parametrize("reason", [r for r in Reason if kind_of(r) in {Kind.COME_BACK, Kind.UNAVAILABLE}])
def test_codex_can_read_the_wait_from_the_openai_text(reason: Reason) -> None:
    body = msgspec.json.decode(dialect_named("openai").refuse(example(reason), None).body)
    found = re.search(r"try again in\s*(\d+(?:\.\d+)?)\s*(s|ms|seconds?)", body["error"]["message"])
    assert found is not None
    assert found.groups() == ("13", "s")


@pytest.mark.parametrize("name", ["openai", "anthropic", "rest"])
def test_the_body_tells_the_same_facts_as_the_headers(name: str) -> None:
    body: Any = msgspec.json.decode(dialect_named(name).refuse(example(Reason.SHED), None).body)
    facts = body if name == "rest" else body["error"]["backpressure"]
    assert {key: facts[key] for key in ("reason", "scope", "limit", "retry_after_ms")} == {
        "reason": "shed",
        "scope": "caller:3fa9c1",
        "limit": "1 requests/3s",
        "retry_after_ms": 12345,
    }


@every_reason
def test_anthropic_never_says_overloaded(reason: Reason) -> None:
    assert b"overloaded" not in dialect_named("anthropic").refuse(example(reason), None).body


@pytest.mark.parametrize("name", DIALECTS)
def test_a_draining_proxy_ends_the_connection_where_the_status_tells_of_it(name: str) -> None:
    answer = dialect_named(name).refuse(example(Reason.DRAINING), None)
    assert header(answer, "connection") == "close"
    assert header(dialect_named(name).refuse(example(Reason.PAUSED), None), "connection") is None


def test_an_unknown_dialect_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        dialect_named("soap")


def test_only_an_mcp_post_needs_its_body_before_the_decision() -> None:
    needing = [
        (name, method)
        for name, dialect in DIALECTS.items()
        for method in (b"GET", b"POST", b"DELETE")
        if dialect.needs_body(method, b"/")
    ]
    assert needing == [("mcp", b"POST")]


def test_only_the_stream_and_the_end_of_an_mcp_session_are_parts_of_one() -> None:
    sessions = [
        (name, method)
        for name, dialect in DIALECTS.items()
        for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE")
        if dialect.is_session(method)
    ]
    assert sessions == [("mcp", b"GET"), ("mcp", b"DELETE")]
