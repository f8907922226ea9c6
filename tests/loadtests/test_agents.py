"""The agents of the load tests behave as the openai SDK does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.utils import formatdate
from itertools import islice, pairwise
from random import Random

import httpx2 as openai_http
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.agents import KINDS, NO_ANSWER, arrivals, end_of, request, told_wait_s, wait_before_retry

NOW = 1_800_000_000.0
CRITICAL = KINDS[0]


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"retry-after": "3"}, 3.0),
        (429, {"retry-after": "3", "retry-after-ms": "2250.5"}, 2.2505),
        (429, {"retry-after": "1.5"}, 1.5),
        (429, {"retry-after": formatdate(NOW + 7, usegmt=True)}, 7.0),
        (429, {"retry-after": "120"}, 120.0),
        (429, {"retry-after": "121"}, None),
        (429, {"retry-after": "3", "x-should-retry": "false"}, None),
        (400, {"retry-after": "3", "x-should-retry": "true"}, 3.0),
        (400, {"retry-after": "3"}, None),
        (503, {"retry-after": "9"}, 9.0),
        (409, {}, 0.5),
        (429, {}, 0.5),
        (429, {"retry-after": "0"}, 0.5),
        (429, {"retry-after": "-1"}, 0.5),
        (429, {"retry-after": "soon"}, 0.5),
        (529, {}, 0.5),
        (NO_ANSWER, {}, 0.5),
        (404, {}, None),
        (200, {}, None),
    ],
)
def test_a_refused_agent_waits_as_it_is_told(
    status: int, headers: dict[str, str], wait_s: float | None
) -> None:
    assert wait_before_retry(status, headers, 0, chance=0.0, now_unix_s=NOW) == wait_s


def test_an_agent_retries_twice_and_no_more() -> None:
    told = {"retry-after-ms": "10"}
    waits = [wait_before_retry(429, told, attempt, 0.0, NOW) for attempt in range(4)]
    assert waits == [0.01, 0.01, None, None]


def test_untold_waits_double_and_are_shortened_by_chance_by_a_quarter_at_most() -> None:
    assert [wait_before_retry(500, {}, attempt, 0.0, NOW) for attempt in (0, 1)] == [0.5, 1.0]
    assert wait_before_retry(500, {}, 0, 1.0, NOW) == 0.375


@pytest.fixture(scope="module")
def sdk() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url="http://127.0.0.1:9", max_retries=2) as client:
        yield client


numbers = st.one_of(st.integers(-10, 200).map(str), st.floats(-10, 200).map(str), st.just("soon"))


@given(
    seconds=st.none() | numbers,
    milliseconds=st.none() | st.integers(-1000, 200_000).map(str),
    advice=st.sampled_from([None, "true", "false", "maybe"]),
    status=st.sampled_from([400, 401, 404, 408, 409, 422, 429, 500, 502, 503, 529]),
)
def test_the_rule_is_the_one_of_the_installed_sdk(
    sdk: openai.OpenAI, seconds: str | None, milliseconds: str | None, advice: str | None, status: int
) -> None:
    given_headers = {"retry-after": seconds, "retry-after-ms": milliseconds, "x-should-retry": advice}
    headers = {name: value for name, value in given_headers.items() if value is not None}
    ours = wait_before_retry(status, headers, 0, chance=0.0, now_unix_s=NOW)
    response = openai_http.Response(status, headers=headers)
    told = sdk._parse_retry_after_header(response.headers)
    assert (ours is not None) == sdk._should_retry(response)
    if ours is not None and told is not None and told > 0:
        assert ours == told


def test_all_attempts_of_a_call_have_one_body_and_no_two_calls_have() -> None:
    first, second = (request(CRITICAL, "critical-1", 1, attempt) for attempt in (0, 1))
    assert first[1] == second[1]
    assert (first[0]["x-stainless-retry-count"], second[0]["x-stainless-retry-count"]) == ("0", "1")
    others = {request(CRITICAL, caller, call, 0)[1] for caller in "ab" for call in range(500)}
    assert len(others) == 1000
    assert len({len(body) for body in others}) > 300


def test_an_agent_says_who_it_is_how_urgent_and_how_patient() -> None:
    headers, body = request(CRITICAL, "critical-7", 1, 0)
    assert headers["x-priority"] == "critical"
    assert headers["x-caller-id"] == "critical-7"
    assert headers["x-stainless-read-timeout"] == "10"
    assert json.loads(body)["messages"][0]["role"] == "user"


def test_calls_arrive_at_the_rate_asked_for_whatever_becomes_of_them() -> None:
    times = list(islice(arrivals(5.0, 100.0, Random(1)), 20_000))
    assert times == sorted(times)
    assert times[0] > 100.0
    assert (times[-1] - 100.0) / 20_000 == pytest.approx(0.2, rel=0.02)
    gaps = [after - before for before, after in pairwise(times)]
    assert sum(gap > 0.2 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)  # 1/e: exponential


def test_critical_calls_alone_stay_below_the_capacity_at_three_times_the_load() -> None:
    assert sum(kind.part for kind in KINDS) == 100
    assert 3 * CRITICAL.part / 100 < 0.5


@pytest.mark.parametrize(
    ("status", "ended_at", "end"),
    [
        (200, 10.0, "good"),
        (200, 10.1, "late"),
        (429, 1.0, "refused"),
        (503, 1.0, "refused"),
        (400, 1.0, "refused"),
        (500, 1.0, "failed"),
        (502, 1.0, "failed"),
        (NO_ANSWER, 1.0, "failed"),
    ],
)
def test_a_call_ends_by_its_last_status_and_the_time_it_took(status: int, ended_at: float, end: str) -> None:
    assert end_of(CRITICAL, status, ended_at, scheduled_at=0.0) == end


def test_an_answer_without_a_time_tells_none() -> None:
    assert told_wait_s({}, NOW) is None
    assert told_wait_s({"retry-after": "inf"}, NOW) is None
