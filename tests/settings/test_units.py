"""Durations, sizes and rates: what is read, what is refused, and the pattern that editors see."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import units

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2}
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.integers(0, 365), st.sampled_from(sorted(SECONDS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert units.duration_s(f"{number}{unit}") == number * SECONDS[unit]


@given(st.integers(1, 1024), st.sampled_from(sorted(BYTES)))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert units.size_bytes(f"{number}{unit}") == number * BYTES[unit]


@given(
    st.integers(1, 10**9),
    st.sampled_from(["request", "requests"]),
    st.sampled_from(["/", " per ", " / "]),
    st.sampled_from(sorted(PERIODS)),
)
def test_a_rate_is_its_amount_over_its_period(amount: int, unit: str, per: str, period: str) -> None:
    rate = units.rate(f"{amount} {unit}{per}{period}")
    assert (rate.amount, rate.period_s) == (amount, PERIODS[period])
    assert rate.per_s == amount / PERIODS[period]


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_label_of_a_rate_means_the_same_rate(amount: int, seconds: int) -> None:
    rate = units.rate(f"{amount} requests per {seconds}s")
    assert units.rate(rate.label) == rate


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("500 requests/minute", "500 requests/minute"),
        ("500 requests per m", "500 requests/minute"),
        ("1 requests / 3s", "1 request/3s"),
        ("2k requests/hour", "2000 requests/hour"),
        ("1.5M requests per day", "1500000 requests/day"),
        ("0.5 requests/second", "0.5 requests/second"),
        ("200k tokens/minute", "200000 tokens/minute"),
        ("1 tokens per 3s", "1 token/3s"),
        ("80k output tokens/minute", "80000 output tokens/minute"),
        ("1 input token/3s", "1 input token/3s"),
    ],
)
def test_a_rate_has_one_label_however_it_is_written(text: str, label: str) -> None:
    assert units.rate(text).label == label


def test_a_floor_needs_no_unit_and_may_be_zero() -> None:
    assert units.floor("10 per minute") == units.floor("10 retries/minute")
    assert units.floor("0 per minute").per_s == 0.0


@pytest.mark.parametrize("value", ["0 requests/minute", "1 request/0s", "1 request/400d", "1 request/0.1ms"])
def test_a_rate_without_room_or_time_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=re.escape("; write")):
        units.rate(value)


@pytest.mark.parametrize(
    ("text", "amount", "unit", "currency"),
    [
        ("10000 requests/day", 10_000, "requests", ""),
        ("5M tokens/day", 5_000_000, "tokens", ""),
        ("1 token per 1h", 1, "tokens", ""),
        ("1M output tokens/day", 1_000_000, "output_tokens", ""),
        ("1 input token/day", 1, "input_tokens", ""),
        ("0.50 USD/day", 0.5, "money", "USD"),
        ("2k EUR per 2h", 2000, "money", "EUR"),
    ],
)
def test_a_quota_counts_requests_tokens_or_money(text: str, amount: float, unit: str, currency: str) -> None:
    quota = units.window(text)
    assert (quota.amount, quota.unit, quota.currency) == (amount, unit, currency)


@pytest.mark.parametrize(
    "value", ["1.5 requests/day", "1 request/500ms", "1 request/1.5s", "1.5 input tokens/day", "0 USD/day"]
)
def test_a_quota_that_cannot_be_counted_whole_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=re.escape("; write")):
        units.window(value)


@pytest.mark.parametrize("value", ["0s", "0ms", "0.5ms", "366d", "999999999999d"])
def test_a_duration_out_of_range_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=re.escape("; write")):
        units.some_duration_s(value)


@pytest.mark.parametrize("value", ["0B", "0.5B", "2GiB", "1025MiB"])
def test_a_size_out_of_range_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=re.escape("; write")):
        units.size_bytes(value)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers()),
    st.from_regex(
        r"[0-9 ]{0,4}(\.[0-9])?(ms|s|k|M| )?(requests?|retries|)(/| per )?(s|3s|day|)", fullmatch=True
    ),
)


@pytest.mark.parametrize("parse", [units.duration_s, units.size_bytes, units.rate, units.window, units.floor])
@given(value=ANYTHING)
def test_anything_else_is_refused_with_what_to_write(parse, value: object) -> None:
    told = "; write "
    try:
        parse(value)
    except ValueError as error:
        told = str(error)
    assert "; write " in told
    assert told.isprintable()


@pytest.mark.parametrize(
    ("parse", "pattern"),
    [
        (units.duration_s, units.DURATION),
        (units.size_bytes, units.SIZE),
        (units.rate, units.RATE),
        (units.floor, units.FLOOR),
    ],
)
@given(data=st.data())
def test_what_an_editor_marks_as_wrong_is_refused(parse, pattern: str, data: st.DataObject) -> None:
    value = data.draw(st.one_of(st.text(), st.from_regex(pattern)))
    try:
        parse(value)
    except ValueError:
        return
    assert re.search(pattern, value)


@pytest.mark.parametrize(("value", "burst"), [(50, 50), ("50", 50), ("50k", 50_000), ("1.5M", 1_500_000)])
def test_a_burst_may_be_written_in_thousands(value: object, burst: int) -> None:
    assert units.burst(value) == burst


@pytest.mark.parametrize("value", [0, "0", "5k tokens", "1.5", True, None, "2000M", "k", -5, float("nan")])
def test_a_burst_that_is_no_whole_number_of_something_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=re.escape("; write")):
        units.burst(value)


def test_a_rate_says_what_it_counts() -> None:
    assert (units.rate("5 tokens/s").unit, units.rate("5 requests/s").unit) == ("tokens", "requests")
