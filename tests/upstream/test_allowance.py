"""What an upstream says is left, in all the forms in which it is said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.word import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS
from proxy.upstream.allowance import FIELDS, MOST, STRUCTURED, word_of
from proxy.upstream.ear import ENOUGH, Ear
from proxy.upstream.retry_after import retry_after_s
from proxy.upstream.spans import LONGEST_S, span_s

WALL = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
DATE = (b"date", b"Tue, 14 Nov 2023 22:13:10 GMT")
Headers = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1234", 1234.0),
        ("0", 0.0),
        ("11.1", 11.1),
        ("33011.382867097855", 33011.382867097855),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1s", 1.0),
        ("30s", 30.0),
        ("20ms", 0.02),
        ("7.66s", 7.66),
        ("1m", 60.0),
        ("5m", 300.0),
        ("6m0s", 360.0),
        ("2m30s", 150.0),
        ("2m59.56s", 179.56),
        ("1m0.5s", 60.5),
        ("1h", 3600.0),
        ("24h", 86_400.0),
        ("1d", 86_400.0),
        ("1h2m3s4ms", 3723.004),
        ("2591999", 2_591_999.0),  # a second less than 30 days: a span
        (str(int(WALL) + 240), 240.0),
        (str(int(WALL) * 1000 + 12_500), 12.5),
        (str(int(WALL) - 99_999), 0.0),
        ("2592000", 0.0),  # thirty days: an instant of 1970, long past
        ("2023-11-14T22:14:20Z", 60.0),
        ("2023-11-14T22:14:20.5Z", 60.5),
        ("2023-11-14T23:14:20+01:00", 60.0),
        ("2023-11-14T22:14:20", 60.0),  # UTC, whatever this machine's zone
        ("2023-11-14T22:13:00Z", 0.0),
        ("Tue, 14 Nov 2023 22:18:20 GMT", 300.0),
        ("", None),
        ("invalid", None),
        ("abc", None),
        ("1m2x", None),
        ("-1m", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("m", None),
        ("s", None),
        ("2023-13-45T99:99:99Z", None),
        ("Tue, 99 Nov 2023 22:18:20 GMT", None),
        ("9999-12-31T23:59:59Z", None),  # no reset: further away than a year
        ("1" * 50, None),
    ],
)  # fmt: skip
def test_when_it_is_reset(text: str, seconds: float | None) -> None:
    assert span_s(text, WALL) == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def said(headers: Headers, status: int = 200) -> list[tuple[str, float, float | None, float | None, bool]]:
    word = word_of(status, headers, WALL)
    if word is None:
        return []
    return [(each.name, each.remaining, each.limit, each.reset_s, each.refills) for each in word.said]


def fields(text: str) -> Headers:
    rows = [line.strip().partition(": ") for line in text.strip().splitlines()]
    return [(name.encode(), value.encode()) for name, _, value in rows]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (
            """
            x-ratelimit-limit-requests: 60
            x-ratelimit-limit-tokens: 150000
            x-ratelimit-remaining-requests: 59
            x-ratelimit-remaining-tokens: 149984
            x-ratelimit-reset-requests: 1s
            x-ratelimit-reset-tokens: 6m0s
            """,
            [(REQUESTS, 59, 60, 1.0, True), (TOKENS, 149_984, 150_000, 360.0, True)],
        ),
        (
            """
            anthropic-ratelimit-requests-limit: 50
            anthropic-ratelimit-requests-remaining: 49
            anthropic-ratelimit-requests-reset: 2023-11-14T22:13:21Z
            anthropic-ratelimit-input-tokens-limit: 40000
            anthropic-ratelimit-input-tokens-remaining: 39000
            anthropic-ratelimit-input-tokens-reset: 2023-11-14T22:13:22Z
            anthropic-ratelimit-output-tokens-limit: 8000
            anthropic-ratelimit-output-tokens-remaining: 8000
            anthropic-ratelimit-output-tokens-reset: 2023-11-14T22:13:20Z
            """,
            [
                (REQUESTS, 49, 50, 1.0, True),
                (INPUT_TOKENS, 39_000, 40_000, 2.0, True),
                (OUTPUT_TOKENS, 8000, 8000, 0.0, True),
            ],
        ),
        # Azure tells what is left and nothing else.
        ("x-ratelimit-remaining-requests: 12", [(REQUESTS, 12, None, None, False)]),
        # Cerebras, Mistral: by windows, which their names tell.
        (
            """
            x-ratelimit-limit-requests-day: 14400
            x-ratelimit-remaining-requests-day: 14370
            x-ratelimit-reset-requests-day: 33011.38
            x-ratelimit-remaining-tokens-minute: 7
            """,
            [
                ("requests a day", 14_370, 14_400, 33_011.38, False),
                ("tokens a minute", 7, None, 60.0, False),
            ],
        ),
        ("x-ratelimit-remaining-req-minute: 3", [("requests a minute", 3, None, 60.0, False)]),
        (
            "ratelimitbysize-limit: 500000\nratelimitbysize-remaining: 499\nratelimitbysize-reset: 44",
            [(TOKENS, 499, 500_000, 44.0, False)],
        ),
        # OpenRouter: an instant in milliseconds.
        (
            "x-ratelimit-limit: 20\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1700000012500",
            [(REQUESTS, 0, 20, 12.5, False)],
        ),
        # GitHub: one in seconds.
        (
            "x-ratelimit-limit: 5000\nx-ratelimit-remaining: 4999\nx-ratelimit-reset: 1700003600",
            [(REQUESTS, 4999, 5000, 3600.0, False)],
        ),
        # The IETF's drafts: up to 06, 07 to 09, and from 10 on.
        (
            "ratelimit-limit: 100, 100;w=60\nratelimit-remaining: 50\nratelimit-reset: 30",
            [(REQUESTS, 50, 100, 30.0, False)],
        ),
        ("ratelimit: limit=100, remaining=50, reset=30", [(REQUESTS, 50, 100, 30.0, False)]),
        (
            'ratelimit-policy: "default";q=100;w=60\nratelimit: "default";r=50;t=30',
            [("requests (default)", 50, 100, 30.0, False)],
        ),
        (
            'ratelimit-policy: "hour";q=1000;w=3600\nratelimit: "hour";r=5, "burst";r=1;t=2',
            [("requests (hour)", 5, 1000, 3600.0, False), ("requests (burst)", 1, None, 2.0, False)],
        ),
        # Of the same said twice, the smallest.
        (
            "x-ratelimit-remaining: 9\nx-ratelimit-remaining: 4\nx-ratelimit-reset: 60\nx-ratelimit-reset: 7",
            [(REQUESTS, 4, None, 7.0, False)],
        ),
        ("x-ratelimit-remaining: -3\nx-ratelimit-limit: 10", [(REQUESTS, 0, 10, None, False)]),
        ("x-ratelimit-remaining: many", []),
        ("x-ratelimit-remaining: 1e5", []),
        ("x-ratelimit-remaining: nan", []),
        ("x-ratelimit-remaining: " + "9" * 18, []),  # more than anybody has: a word for no end
        ("x-ratelimit-limit: 10", []),
        ("ratelimit: limit=100", []),
        ('ratelimit: "x";q=1', []),
        ("content-type: text/plain", []),
    ],
)  # fmt: skip
def test_what_is_left(headers: str, found: list[object]) -> None:
    assert said(fields(headers)) == [pytest.approx(each) for each in found]


def test_an_instant_is_measured_from_the_answers_own_clock() -> None:
    headers = [DATE, *fields("x-ratelimit-remaining: 1\nx-ratelimit-reset: 1700000020")]
    assert said(headers)[0][3] == 30.0


@pytest.mark.parametrize(
    ("headers", "wait_s", "holds"),
    [
        ("retry-after: 120", 120.0, True),
        ("retry-after: 0", 0.0, True),
        ("retry-after: 120s", None, False),
        ("retry-after: invalid", None, False),
        ("retry-after-ms: 1500\nretry-after: 2", 1.5, True),
        ("x-ms-retry-after-ms: 2500", 2.5, True),
        ("retry-after: Tue, 14 Nov 2023 22:18:20 GMT", 300.0, True),
        ("retry-after: 9\nx-should-retry: false", 9.0, False),
        ("retry-after: 9\nx-should-retry: true", 9.0, True),
        ("content-length: 0", None, False),
    ],
)  # fmt: skip
def test_a_refusal_and_its_time(headers: str, wait_s: float | None, holds: bool) -> None:
    word = word_of(429, fields(headers), WALL)
    assert word is not None
    assert word.refused
    assert word.wait_s == wait_s
    assert word.holds is holds
    assert word_of(200, fields(headers), WALL) is None


names = st.sampled_from(
    sorted([*FIELDS, *STRUCTURED, b"retry-after", b"retry-after-ms", b"date", b"x-should-retry"])
)
numbers = st.one_of(st.integers(), st.floats()).map(lambda number: str(number).encode())
spans = st.from_regex(rb"[0-9]{0,12}(\.[0-9]{0,3})?(ms|s|m|h|d)?([0-9]{1,3}s)?", fullmatch=True)
lists = st.from_regex(rb'("?[a-z]{0,3}"?(;[rtqw]=[-0-9.e]{0,9}|=[0-9]{0,4}){0,3},? ?){0,6}', fullmatch=True)
instants = st.datetimes().map(lambda at: at.isoformat().encode())
values = st.one_of(numbers, spans, lists, instants, st.binary(max_size=600))


@given(st.lists(st.tuples(names, values), max_size=12), st.sampled_from([200, 429, 503]))
def test_whatever_is_said_nothing_is_negative_or_without_end(headers: Headers, status: int) -> None:
    word = word_of(status, headers, WALL)
    if word is None:
        return
    assert len(word.said) <= len(headers) * 4
    for each in word.said:
        assert 0.0 <= each.remaining <= MOST
        assert each.limit is None or each.remaining <= each.limit <= MOST
        assert each.reset_s is None or 0.0 <= each.reset_s <= LONGEST_S
    assert word.wait_s is None or (word.wait_s >= 0.0 and math.isfinite(word.wait_s))
    assert word.wait_s == (retry_after_s(headers, WALL) if status == 429 else None)


class Listener:
    """A leash that notes what is heard."""

    def __init__(self) -> None:
        self.words = 0

    def heard(self, _: object) -> float | None:
        self.words += 1
        return None


def test_one_that_says_nothing_is_listened_to_seldom_and_its_429_always() -> None:
    ear, leash = Ear(), Listener()
    for _ in range(ENOUGH + 1):
        ear.listen(200, [(b"x", b"y")], leash)
    late = fields("x-ratelimit-remaining: 4")
    assert ear.listen(200, late, leash) == late
    assert leash.words == 0  # it was not looked at
    ear.listen(429, fields("retry-after: 3"), leash)
    assert leash.words == 1
    ear.listen(200, late, leash)  # from now on each is
    assert leash.words == 2
