"""Advice on the wire: the same in header, body and text, and no digit where clients would scan for one."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.advice import Advice
from proxy.core.costs import Costs
from proxy.core.used import Estimate
from proxy.core.verdict import Reason, Refusal
from proxy.dialects import DIALECTS, dialect_named
from proxy.dialects.advice import EDIT_TOKENS, LEAST_OUTPUT, output_that_fits
from proxy.dialects.bodies import read_completion
from proxy.dialects.estimate import estimate, size_of
from tests.dialects.chance import steady
from tests.dialects.refusals import FINAL, HOSTILE, STOPS, header
from tests.dialects.test_refusal import BY_STATUS, SCANNED, TOOL_CALL

NAME = "x-backpressure-advice"
INVITING = [reason for reason in Reason if reason not in FINAL]


def whole(route: str = "/azure2/", model: str = "gpt-4o-mini") -> Advice:
    advice = Advice(tokens=900, parallel=4)
    advice.output, advice.route, advice.model = 512, route, model
    return advice


def refused(name: str, reason: Reason, advice: Advice | None, *, come_back: bool = True) -> Any:
    refusal = Refusal(reason, "caller:a", 12.0, come_back=come_back, advice=advice)
    return dialect_named(name).refuse(refusal, TOOL_CALL)


def parsed(value: str) -> dict[str, object]:
    """A Dictionary of RFC 9651, as far as it is used."""
    known: dict[str, object] = {}
    while value:
        found = re.match(r'([a-z_]+)(?:=(?:(\d{1,15})|"((?:[^"\\]|\\["\\])*)"))?(?:, |$)', value)
        assert found is not None, value
        name, number, text = found.groups()
        unquoted = None if text is None else re.sub(r'\\(["\\])', r"\1", text)
        known[name] = int(number) if number else True if unquoted is None else unquoted
        value = value[found.end() :]
    return known


def facts(name: str, body: bytes) -> dict[str, Any]:
    reply = msgspec.json.decode(body)
    if name == "rest":
        return dict(reply)
    if name == "mcp":
        meta = reply["result"]["_meta"]
        return {key.partition("/")[2]: value for key, value in meta.items()}
    if name == "gemini":
        metadata = reply["error"]["details"][-1]["metadata"]
        told = metadata["advice"]
        return {"advice": parsed(told) if "scope" in metadata else dict.fromkeys(told.split(", "))}
    return dict(reply["error"]["backpressure"])


def text(name: str, body: bytes) -> str:
    reply = msgspec.json.decode(body)
    if name == "rest":
        return str(reply["detail"])
    return str(reply["result"]["content"][0]["text"] if name == "mcp" else reply["error"]["message"])


@pytest.mark.parametrize("reason", INVITING)
@pytest.mark.parametrize("name", DIALECTS)
def test_header_body_and_text_say_the_same(name: str, reason: Reason) -> None:
    answer = refused(name, reason, whole())
    told = header(answer, NAME)
    assert told is not None
    expected = {
        "smaller_output": 512,
        "most_tokens": 900,
        "fewer_parallel": 4,
        "other_route": "/azure2/",
        "cheaper_model": "gpt-4o-mini",
    }
    assert parsed(told) == facts(name, answer.body)["advice"] == expected
    said = text(name, answer.body)
    for part in ("at most 512 tokens of output", "at most 4 calls", "under /azure2/.", "gpt-4o-mini."):
        assert part in said


@pytest.mark.parametrize("name", DIALECTS)
def test_without_advice_nothing_of_it_is_said(name: str) -> None:
    answer = refused(name, Reason.BUCKET_EMPTY, None)
    assert header(answer, NAME) is None
    assert b"advice" not in answer.body
    assert header(refused(name, Reason.BUCKET_EMPTY, Advice()), NAME) is None


def test_of_tokens_alone_it_is_told_how_many_in_all_and_of_one_call_no_number() -> None:
    said = text("openai", refused("openai", Reason.BUCKET_EMPTY, Advice(tokens=900)).body)
    assert said.endswith(" It would pass at once if it cost at most 900 tokens in all.")
    said = text("mcp", refused("mcp", Reason.CAP_REACHED, Advice(parallel=1)).body)
    assert said.endswith(" Make one call at a time.")


@pytest.mark.parametrize("place", HOSTILE)
@pytest.mark.parametrize("reason", FINAL)
@pytest.mark.parametrize("name", BY_STATUS)
def test_a_final_body_names_the_advice_and_no_value_of_it(name: str, reason: Reason, place: str) -> None:
    answer = refused(name, reason, whole(place, place))
    body = answer.body.decode()
    assert SCANNED.findall(re.sub('^{"error":{"code":[0-9]{3},', "", body)) == [], "but for Gemini's own code"
    assert set(facts(name, answer.body)["advice"].values()) == {None}
    told = header(answer, NAME)
    assert told is not None
    assert parsed(told)["smaller_output"] == 512


@pytest.mark.parametrize("reason", FINAL)
def test_a_final_mcp_text_has_no_digit_of_it_either(reason: Reason) -> None:
    assert SCANNED.findall(text("mcp", refused("mcp", reason, whole()).body)) == []


def test_a_final_text_says_where_the_number_stands() -> None:
    said = text("openai", refused("openai", Reason.TOO_DEAR, whole()).body)
    assert "less output: x-backpressure-advice says how much. There is room elsewhere" in said
    said = text("openai", refused("openai", Reason.TOO_DEAR, Advice(tokens=9)).body)
    assert said.endswith("A smaller one can pass: x-backpressure-advice says how small.")


@pytest.mark.parametrize("name", BY_STATUS)
def test_a_text_that_invites_no_return_has_no_digit_of_it(name: str) -> None:
    said = text(name, refused(name, Reason.CAP_REACHED, whole(), come_back=False).body)
    assert SCANNED.findall(said) == []


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("reason", STOPS)
def test_who_is_to_stop_is_told_so_in_a_word(name: str, reason: Reason) -> None:
    answer = refused(name, reason, None)
    if reason is Reason.TOO_DEAR:
        assert header(answer, NAME) is None
    else:
        assert header(answer, NAME) == "stop"
        told = '"advice":"stop"' if name == "gemini" else '"advice":{"stop":true}'
        assert told in answer.body.decode().replace("backpressure/", "")


@steady
@given(route=st.text(st.characters(codec=None)), model=st.text(st.characters(codec=None)))
def test_any_name_leaves_a_header_that_can_be_read(route: str, model: str) -> None:
    told = header(refused("openai", Reason.BUCKET_EMPTY, whole(route, model)), NAME)
    assert told is not None
    assert re.fullmatch(r"[\x20-\x7e]*", told)
    assert parsed(told)["fewer_parallel"] == 4


MEMBERS = ["max_tokens", "max_completion_tokens", "max_output_tokens"]


@steady
@given(
    prompt=st.text(max_size=300),
    asked=st.none() | st.integers(1, 10**6),
    n=st.none() | st.integers(1, 9),
    tokens=st.integers(0, 10**6),
    member=st.sampled_from(MEMBERS),
    spaced=st.booleans(),
)
def test_a_call_that_asks_for_the_output_advised_is_estimated_within_it(
    prompt: str, asked: int | None, n: int | None, tokens: int, member: str, spaced: bool
) -> None:
    body: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    body |= {} if n is None else {"n": n}
    first = json.dumps(body | ({} if asked is None else {member: asked})).encode()
    given = cost(first).input
    most = output_that_fits(read_completion(first), tokens, given)
    if asked is None:
        assert most == 0, "nor may a bound of another name be known"
        return
    if not most:
        assert tokens - EDIT_TOKENS - given < LEAST_OUTPUT * (n or 1)
        return
    second = json.dumps(body | {member: most}, indent=1 if spaced and not prompt else None).encode()
    assert cost(second).tokens <= tokens


def cost(body: bytes) -> Estimate:
    return estimate(Costs(), "ann", "m", size_of(body), read_completion(body), input_only=False)
