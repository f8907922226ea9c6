"""What an overload run is reported to be, from records, ledger and metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isnan
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from loadtests.agents import CallRecord
from loadtests.figures import median_ratio, percentile
from loadtests.report import ENDS, Plan, Window, refused_by_reason, render, summarise, why_void

PLAN = Plan(slots=4, latency_s=0.1, factor=3.0, seconds=10.0)  # 40/s of capacity, 120/s offered


def ledger(completed: int, peak: int = 4) -> dict[str, Any]:
    return {"completed": completed, "peak_in_flight": peak, "ended": {"done": completed}}


WINDOW = Window(100.0, 110.0, ledger(50), ledger(440), cpu_used_s={"proxy": 2.5})


def call(scheduled_at: float, end: str = "good", priority: str = "normal", took_s: float = 0.5) -> CallRecord:
    statuses = {"good": [200], "refused": [429, 429, 429]}.get(end, [])
    return CallRecord(priority, scheduled_at, scheduled_at + 0.001, scheduled_at + took_s, end, statuses)


def offered(number: int) -> list[CallRecord]:
    return [call(100.0 + 10.0 * at / number) for at in range(number)]


def summary(records: list[CallRecord], metrics: str = "") -> dict[str, Any]:
    return summarise(PLAN, WINDOW, records, ledger(900, peak=5), metrics)


def test_goodput_is_what_the_upstream_completed_in_the_window_against_its_capacity() -> None:
    told = summary(offered(1200))
    assert told["capacity_per_s"] == 40.0
    assert told["goodput_per_s"] == 39.0
    assert told["goodput_ratio"] == pytest.approx(0.975)
    assert told["offered_per_s"] == 120.0
    assert told["void"] == ""


def test_goodput_of_less_than_capacity_is_measured_against_what_was_offered() -> None:
    window = replace(WINDOW, ledger_after=ledger(50 + 200))
    told = summarise(replace(PLAN, factor=0.5), window, offered(200), ledger(250), "")
    assert told["goodput_ratio"] == 1.0


def test_only_calls_scheduled_within_the_window_count_wherever_they_ended() -> None:
    told = summary([call(99.9), call(100.0), call(109.9, took_s=30.0), call(110.0)])
    assert told["classes"]["normal"]["offered"] == 2


def test_every_call_of_a_class_has_one_end() -> None:
    records = [call(101.0, end) for end in ENDS for _ in range(ENDS.index(end) + 1)]
    told = summary(records)["classes"]["normal"]
    assert told["ends"] == {end: ENDS.index(end) + 1 for end in ENDS}
    assert sum(told["ends"].values()) == told["offered"] == len(records)
    assert told["success"] == pytest.approx(1 / len(records))


def test_the_classes_are_told_apart() -> None:
    records = [call(101.0, "good", "critical", 0.2), call(101.0, "refused", "background")]
    told = summary(records)
    assert told["classes"]["critical"]["success"] == 1.0
    assert told["classes"]["critical"]["p99_s"] == pytest.approx(0.2)
    assert told["classes"]["background"]["success"] == 0.0
    assert told["classes"]["background"]["retries"] == 2
    assert isnan(told["classes"]["normal"]["success"])
    assert told["attempts"] == 4
    assert told["retries"] == 2


def test_a_peak_beyond_the_cap_is_shown_beside_it() -> None:
    told = summary(offered(1200))
    assert (told["upstream_peak_in_flight"], told["cap"]) == (5, 4)
    assert "peak in flight 5 (cap 4)" in render(told)


def test_a_refusal_without_a_time_to_return_is_counted() -> None:
    rude = call(101.0, "refused")
    rude.told_nothing = 2
    assert summary([rude, call(102.0)])["refusals_without_retry_after"] == 2


@pytest.mark.parametrize(
    ("offered_calls", "still_open", "late_s", "why"),
    [
        (1200, 0, 0.001, ""),
        (1200, 0, 0.025, ""),
        (1061, 0, 0.001, "the generator offered 1061 calls instead of 1200"),
        (1339, 0, 0.001, "the generator offered 1339 calls instead of 1200"),
        (1100, 0, 0.001, ""),  # within four times the scatter of Poisson arrivals
        (1200, 3, 0.001, "3 calls had not ended when the run did"),
        (1200, 0, 0.026, "the generator was late: p99 26.0 ms"),
    ],
)
def test_a_run_is_void_when_the_generator_did_not_do_its_part(
    offered_calls: int, still_open: int, late_s: float, why: str
) -> None:
    assert why_void(PLAN, 10.0, offered_calls, still_open, late_s) == why


def test_a_void_run_says_so_on_its_page() -> None:
    assert render(summary(offered(10))).endswith("VOID: the generator offered 10 calls instead of 1200")


def test_a_run_without_any_call_is_void_and_can_be_shown() -> None:
    told = summary([])
    assert told["void"]
    assert "VOID" in render(told)


def test_refusals_are_read_from_the_metrics_by_reason_the_most_frequent_first() -> None:
    registry = CollectorRegistry()
    refused = Counter(
        "backpressure_calls_refused", "Refused.", ["route", "priority", "reason"], registry=registry
    )
    refused.labels("chat", "normal", "queue_full").inc(2)
    refused.labels("chat", "background", "shed").inc(5)
    refused.labels("chat", "normal", "shed").inc(1)
    refused.labels("chat", "normal", "displaced").inc(0)
    told = refused_by_reason(generate_latest(registry).decode())
    assert list(told.items()) == [("shed", 6), ("queue_full", 2)]


def test_the_summary_is_json() -> None:
    assert json.loads(json.dumps(summary(offered(1200))))["cap"] == 4


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_the_percentile_of_nothing_is_not_a_number() -> None:
    assert isnan(percentile([], 0.5))


def test_a_round_that_slowed_both_sides_does_not_move_the_ratio() -> None:
    assert median_ratio([100.0, 20.0, 110.0], [50.0, 10.0, 55.0]) == 2.0


def test_ratios_are_taken_round_by_round() -> None:
    assert median_ratio([10.0, 20.0, 30.0], [10.0, 10.0, 10.0]) == 2.0
    with pytest.raises(ValueError, match="argument 2 is"):
        median_ratio([1.0, 2.0, 3.0], [1.0])
